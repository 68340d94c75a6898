-- Whether the server can notice, during a statement, that its client is gone: a killed worker's locks are then released.
SELECT set_config('client_connection_check_interval', '2s', true)
