-- Whether the server can notice, during a statement, that its client is gone: a killed worker's locks then go with it.
SELECT set_config('client_connection_check_interval', '2s', true)
