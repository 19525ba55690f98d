"""Multi-modal records for JAX: read, batch, and cross-modal operators that train with your model."""
