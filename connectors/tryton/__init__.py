"""Tryton: opportunities become events, commands become projects and tasks."""
