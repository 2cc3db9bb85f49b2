#!/usr/bin/env bash
# A daily Prefect interval moves to another hour, and one day can get two runs.
#
# Guess:    IntervalSchedule of one day with a time zone fires at the same clock hour all year, as its
#           docstring says, and the dates do not depend on when they are computed.
# Seen:     the jump from the anchor to the present counts seconds, the steps after it count days. With
#           an anchor at 09:00 in winter, dates computed before the change of the clocks are at 09:00 and dates
#           computed after it are at 10:00. 30 March is planned for 09:00 on the 28th and for 10:00 on the 29th.
#           The cron schedule 30 2 * * * runs at 01:30 on the day when 02:30 does not exist.
# Versions: prefect 3.8.8.
# Matters:  the server plans ahead again and again and adds each date that it does not have yet (read in its
#           code, not run here), so the days already planned can get a second run, an hour later.
# Remedy:   use a cron schedule outside the hour that the clocks skip, or an anchor in UTC.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --no-compile --no-warn-conflicts --target "$folder/site-packages" \
  prefect==3.8.8 pydantic==2.14.3 pendulum==3.3.0 SQLAlchemy==2.0.58
export PYTHONPATH="$folder/site-packages"
cd "$folder"
export PREFECT_HOME="$folder/home" PREFECT_LOGGING_LEVEL=ERROR DO_NOT_TRACK=1
python3 - <<'PY'
import asyncio, datetime as dt
from zoneinfo import ZoneInfo
import prefect
from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule
print("prefect", prefect.__version__)
zone = ZoneInfo("Europe/Berlin")
daily = IntervalSchedule(interval=dt.timedelta(days=1), timezone="Europe/Berlin",
                         anchor_date=dt.datetime(2026, 1, 1, 9, tzinfo=zone))
def dates(schedule, day):
    start = dt.datetime(2026, 3, day, 12, tzinfo=zone)
    return [d.astimezone(zone).strftime("%d %H:%M") for d in asyncio.run(schedule.get_dates(3, start=start))]
before, after = dates(daily, 28), dates(daily, 29)
nightly = dates(CronSchedule(cron="30 2 * * *", timezone="Europe/Berlin"), 28)
print("daily at 09:00, computed on 28 March:", before)
print("daily at 09:00, computed on 29 March:", after)
print("cron 30 2 * * *, clocks change on 29 March:", nightly)
assert before == ["29 09:00", "30 09:00", "31 09:00"], "dates before the change have changed"
assert after == ["30 10:00", "31 10:00", "01 10:00"], "dates after the change have changed"
assert nightly == ["29 01:30", "30 02:30", "31 02:30"], "cron has changed"
PY
