#!/bin/sh
# fresh-session.sh PERSON TARGET: inside a bare Debian, as its first process: `make TARGET` in PERSON's clone. Fails too
# if a process is left when that is over.
su - "$1" -c "cd pgpassport && make $2" || exit
# What is told to end may take a moment.
sleep 2
left=
for stat in /proc/[0-9]*/stat; do
  read -r line 2>/dev/null <"$stat" || continue
  pid=${line%% *}
  state=${line##*) }
  case $pid:$state in
    1:* | *:Z*) ;;
    *) left="$left ${line%%) *})" ;;
  esac
done
[ -z "$left" ] || { echo "processes left behind:$left"; exit 1; }
