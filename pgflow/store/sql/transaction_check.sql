-- What an activity has left its transaction in. From here on the engine's settings: its locks are held for no longer than
-- its lease allows, and its statements are planned as they are everywhere else.
SELECT
    current_setting('pgflow.transaction', true),
    current_setting('transaction_isolation'),
    current_setting('transaction_read_only'),
    current_setting('search_path'),
    current_user::text,
    set_config('lock_timeout', %(wait)s::text, true),
    set_config('statement_timeout', %(wait)s::text, true),
    set_config('idle_in_transaction_session_timeout', %(wait)s::text, true),
    {settings}
