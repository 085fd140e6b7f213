"""The machinery that trains any recipe on any data set under any strategy, and records it."""
