"""Redmine: projects and issues over its REST API."""
