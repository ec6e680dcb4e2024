"""Alembic's entry: it runs on the connection that `hub.ledger.database.migrate` hands in."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
