"""The page that opens files in a browser: its weights, its files, and links and codes that lead to it."""
