/** What comes from outside and is wrong. Its message is one sentence for whoever looks at the page. */
export class Refused extends Error {}
