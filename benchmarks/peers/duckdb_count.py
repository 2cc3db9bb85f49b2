"""DuckDB: words at spaces, counted, sorted and written by one query."""

import time

import duckdb
from common import arguments, told

# A column a line: the delimiter is a character that the texts do not have
QUERY = """
COPY (
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
    ORDER BY count DESC, token
) TO '{out}' (FORMAT csv, DELIMITER '\t', HEADER false, QUOTE '', ESCAPE '')
"""


def main() -> None:
    """Run the query."""
    given = arguments(["whitespace"])
    connection = duckdb.connect(config={"threads": given.workers})
    started = time.perf_counter()
    connection.execute(QUERY.format(file=given.file, out=given.out))
    seconds = time.perf_counter() - started
    read = "read_csv(?, columns = {'token': 'VARCHAR', 'count': 'BIGINT'}, delim = '\t', quote = '', escape = '')"
    tokens, types = connection.execute(f"SELECT sum(count), count(*) FROM {read}", [given.out]).fetchall()[0]
    told(time.perf_counter() - seconds, int(tokens), int(types))


if __name__ == "__main__":
    main()
