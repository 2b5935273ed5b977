-- The login of the checks: it can connect, and nothing else. Once, on the primary.
CREATE ROLE {{ check.user|sql_name }} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
{% if method != "trust" %}
-- Its password, which psql asks for and no log gets to see; password_file in [check] has the same:
--   \password {{ check.user|sql_name }}
{% endif %}
