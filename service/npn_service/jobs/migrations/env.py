"""What Alembic runs: the revisions, on the connection that `migrate` opened."""

from alembic import context

from npn_service.jobs.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
context.run_migrations()
