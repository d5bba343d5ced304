#!/usr/bin/env bash
# Pushes the Lua code on stdin to all that listen, or to one of them: push.sh CODE_URL [NAME]
curl -fsS -H 'Content-Type: text/plain' --data-binary @- "$1${2:+?to=$2}"
