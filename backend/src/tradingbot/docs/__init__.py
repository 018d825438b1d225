"""The page that shows the API in a browser, with all that it loads."""
