/** An error of input from outside. Its message is one sentence for the user of the page. */
export class Refused extends Error {}
