"""DuckDB: words at spaces, counted into a table, sorted and written."""

import time

import duckdb
from common import arguments, report

# A column a line: the delimiter is a character that the texts do not have
COUNT = """
CREATE TEMP TABLE counts AS
SELECT token, count(*) AS count
FROM (
    SELECT unnest(string_split(line, ' ')) AS token
    FROM read_csv(
        '{file}', columns = {{'line': 'VARCHAR'}}, header = false, delim = '\x01', quote = '', escape = '',
        auto_detect = false, max_line_size = 100000000, new_line = '\\n'
    )
)
WHERE token <> ''
GROUP BY token
"""
WRITE = """
COPY (SELECT token, count FROM counts ORDER BY count DESC, token)
TO '{out}' (FORMAT csv, DELIMITER '\t', HEADER false, QUOTE '', ESCAPE '')
"""


def main() -> None:
    """Run the queries."""
    given = arguments(["whitespace"])
    connection = duckdb.connect(config={"threads": given.workers, "preserve_insertion_order": False})
    started = time.perf_counter()
    connection.execute(COUNT.format(file=given.file))
    connection.execute(WRITE.format(out=given.out))
    seconds = time.perf_counter() - started
    tokens, types = connection.execute("SELECT sum(count), count(*) FROM counts").fetchall()[0]
    report(time.perf_counter() - seconds, int(tokens), int(types))


if __name__ == "__main__":
    main()
