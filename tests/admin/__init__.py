"""coopshm-admin, as a real command beside real processes that use the caches."""
