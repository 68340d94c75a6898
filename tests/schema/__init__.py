"""Tests of the schema: migrations, views, functions and the page of recipes."""
