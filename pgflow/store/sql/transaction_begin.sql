-- Marks the transaction of an activity, so that its end can check that it is the same one, and answers what it began with.
-- A transaction whose activity must have ended long ago does not keep its locks, unless somebody has set a limit already.
SELECT
    current_setting('search_path'),
    current_user::text,
    set_config('pgflow.transaction', %(mark)s::text, true),
    set_config('idle_in_transaction_session_timeout', CASE
        WHEN current_setting('idle_in_transaction_session_timeout') = '0' THEN %(idle)s::text
        ELSE current_setting('idle_in_transaction_session_timeout') END, true),
    set_config('client_connection_check_interval', %(watch)s::text, true)
