#!/usr/bin/env bash
# Dumps of every database of the servers, and their way back. $PGHOST, $PGPORT, $PGUSER and $PGPASSWORD say where; $BACKUPS is the folder.
#   backup.sh once | daily | fresh | restore FOLDER    `fresh`: is the newest younger than 25 hours?
set -euo pipefail
databases=(mlflow mlflow_accounts prefect)
kept_days=14

once() {
    local into
    into=$BACKUPS/$(date -u +%Y%m%dT%H%M%SZ)
    rm -rf "$BACKUPS"/*.part
    mkdir "$into.part"
    for database in "${databases[@]}"; do
        pg_dump --format=custom --dbname="$database" --file="$into.part/$database.dump"
    done
    # Renamed when it is whole: what has the name of a time can be restored.
    mv "$into.part" "$into"
    find "$BACKUPS" -mindepth 1 -maxdepth 1 -type d -mtime "+$kept_days" -exec rm -r {} +
    echo "$into"
}

# Stop MLflow and Prefect before: each database is replaced as a whole.
restore() {
    for database in "${databases[@]}"; do
        pg_restore --clean --if-exists --no-owner --exit-on-error --single-transaction --dbname="$database" "$1/$database.dump"
    done
}

case ${1:?once, daily, fresh or restore FOLDER} in
    once) once ;;
    # A process of its own: as a condition of the loop, a dump that fails would not end it.
    daily) while :; do bash "$0" once; sleep 86400; done ;;
    fresh) [ -n "$(find "$BACKUPS" -mindepth 1 -maxdepth 1 -type d ! -name '*.part' -mmin -1500)" ] ;;
    restore) restore "${2:?the folder of a dump}" ;;
    *) echo "backup.sh once | daily | fresh | restore FOLDER" >&2; exit 2 ;;
esac
