"""Let the tests in this folder and below import its helper modules."""
