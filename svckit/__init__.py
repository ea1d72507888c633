"""Code that both servers share: lifecycle, batching, errors, configuration, TLS, metrics and logs."""
