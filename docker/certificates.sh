#!/bin/sh
# Certificates for a cluster: an authority of its own, and for each broker one certificate for its name, and one for PostgreSQL.
#   certificates.sh FOLDER NAME[,ALSO...]...      e.g. certificates.sh docker/tls kafka-1 kafka-2 kafka-3 postgres
# FOLDER/ca.pem is what clients trust; FOLDER/NAME/ holds broker.pem (key and certificate, as Kafka reads them), key.pem,
# certificate.pem and ca.pem. Names that exist already are left as they are. Nobody but the owner can read a key.
set -eu
umask 077
folder=$1
shift
mkdir -p "$folder"
if [ ! -f "$folder/ca.pem" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Baton cluster authority" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout "$folder/ca.key" -out "$folder/ca.pem" 2>/dev/null
fi
for names; do
  name=${names%%,*}
  at=$folder/$name
  [ -f "$at/broker.pem" ] && continue
  mkdir -p "$at"
  also=
  for each in $(printf %s "$names" | tr , ' '); do
    case $each in
      *[!0-9.]*) also="$also,DNS:$each" ;;
      *) also="$also,IP:$each" ;;
    esac
  done
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${also#,}" >"$at/extensions"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
    -keyout "$at/key.pem" -out "$at/request" 2>/dev/null
  openssl x509 -req -in "$at/request" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial -days 825 \
    -extfile "$at/extensions" -out "$at/certificate.pem" 2>/dev/null
  cp "$folder/ca.pem" "$at/ca.pem"
  cat "$at/key.pem" "$at/certificate.pem" "$folder/ca.pem" >"$at/broker.pem"
  rm "$at/request" "$at/extensions"
  # The image of Kafka runs as user 1000, that of PostgreSQL as 999, which takes no key but its own: only root can give it away.
  user=1000
  case $name in postgres*) user=999 ;; esac
  if [ "$(id -u)" = 0 ]; then
    chown -R "$user:$user" "$at"
  elif [ "$(id -u)" != "$user" ]; then
    echo "$at is for user $user: chown -R $user:$user $at, as root" >&2
  fi
done
chmod 755 "$folder"
chmod 644 "$folder/ca.pem"
