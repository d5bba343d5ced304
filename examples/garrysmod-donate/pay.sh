#!/usr/bin/env bash
# Pushes a payment, again and again until it is surely stored: pay.sh URL PAYMENT_ID STEAMID AMOUNT
# Where a reply was lost it is stored twice. That is harmless: the game knows a payment by its id.
set -euo pipefail
jq -n --arg payment "$2" --arg steamid "$3" --argjson amount "$4" '{$payment, $steamid, $amount}' |
    curl -fsS --retry 10 --retry-all-errors --max-time 20 -d @- "$1"
