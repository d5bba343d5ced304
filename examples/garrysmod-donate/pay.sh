#!/usr/bin/env bash
# Pushes a payment: pay.sh SEND_URL PAYMENT_ID STEAMID AMOUNT
# After a failure it tries again, ten times in about 17 minutes. Only exit code 0 says that it is stored: after any other,
# run it again with the same id. Where a reply was lost it is stored twice; the game knows a payment by its id.
set -euo pipefail
payment=$(jq -n --arg payment "$2" --arg steamid "$3" --argjson amount "$4" '{$payment, $steamid, $amount}')
curl -fsS --retry 10 --retry-all-errors --max-time 20 -d "$payment" "$1"
