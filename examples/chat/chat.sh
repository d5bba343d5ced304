#!/usr/bin/env bash
# A chat in the terminal: chat.sh URL NAME. What you type is pushed; what anybody has said or says is shown.
url=$1 name=$2 ts=0
listen() {
    while true; do
        until page=$(curl -fsS "$url?ts=$ts&sleep=60"); do sleep 1; done
        ts=$(jq .ts <<<"$page")
        # Without its control characters a line cannot steer the reader's terminal.
        jq -r '.updates[] | "\(.name?): \(.text?)" | gsub("\\p{Cc}"; "")' <<<"$page"
    done
}
set -m; listen & trap 'kill -- -$!' EXIT
while read -r text; do jq -n --arg name "$name" --arg text "$text" '{$name, $text}' | curl -fsS -o /dev/null -d @- "$url"; done
