#!/bin/sh
# Push a won deal as the CRM would, signed by Standard Webhooks.
# usage: ./win_a_deal.sh [number] [amount]
set -eu
cd "$(dirname "$0")"
secret=${CRM_SECRET:-$(sed -n 's/^CRM_SECRET=//p' .env)}
port=${HUB_WEB_PORT:-$(sed -n 's/^web:.*port: *\([0-9]*\).*/\1/p' hub.yaml)}
at=$(date -u +%Y-%m-%dT%H:%M:%SZ) sent=$(date +%s)
id="msg_$sent-$$"
body=$(printf '{"type":"deal.won","at":"%s","deal":{"id":"O-%s","version":1,"title":"Gateway %s","customer":"Globex","amount":%s,"currency":"CNY","owner":"U-3"}}' \
  "$at" "${1:-$sent}" "${1:-$sent}" "${2:-880000}")
key=$(printf %s "${secret#whsec_}" | base64 -d | od -An -v -tx1 | tr -d ' \n')
signature=$(printf '%s.%s.%s' "$id" "$sent" "$body" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64)
curl -sS -w '  HTTP %{http_code}\n' "http://127.0.0.1:$port/webhooks/crm" -H 'Content-Type: application/json' \
  -H "webhook-id: $id" -H "webhook-timestamp: $sent" -H "webhook-signature: v1,$signature" --data-binary "$body"
