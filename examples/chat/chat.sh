#!/usr/bin/env bash
# A chat in the terminal: chat.sh URL NAME. What you type is pushed; what anybody has said or says is shown.
url=$1 name=$2 ts=0
listen() {
    while true; do
        # No reply, or one of somebody else on the way (a hotel's page): again, and after a pause if it did not wait.
        until began=$SECONDS; page=$(curl -fsS --max-time 40 "$url?ts=$ts&sleep=25") && next=$(jq '.ts | numbers' <<<"$page") && [ "$next" ]; do ((SECONDS - began > 1)) || sleep 1; done
        ts=$next
        # Without its control characters a line cannot steer the reader's terminal.
        jq -r '.updates[] | "\(.name?): \(.text?)" | gsub("\\p{Cc}"; "")' <<<"$page"
    done
}
set -m; listen & trap 'kill -- -$!' EXIT
while read -r text; do jq -n --arg name "$name" --arg text "$text" '{$name, $text}' | curl -fsS --max-time 20 -o /dev/null -d @- "$url"; done
