# shellcheck shell=dash
# Sourced by every script: how a container speaks, how it records the one outcome, and how every other container reads it.
#
# A container writes to one directory, $state/$own, which every other container mounts read-only. There:
#   outcome  "KEY VALUE" a line: round N (load counts them), uptime of the kernel in seconds, status True|False|Unknown, line
#            and message, which say all of it in short; for each reason, most decisive first: reason NAME, subject, sentence,
#            fix; at the end: error WHAT THE KERNEL SAID, and findings: backend NAME VERDICT, path PATH FAMILY RESULT, ambient
#            applies|refused. outcome.awk makes it.
# What is read from there was written by a container with fewer rights: it is data, bounded and cleaned, and never run.
#
# In: ISTIO_OS_INIT_STATE            the directory of those directories. Default /run/istio-os-init.
#     ISTIO_OS_INIT_TERMINATION_LOG  path of the termination message. Default /dev/termination-log (Kubernetes' own).
#     $own                           set by each script that concludes: load, verify, traffic or watch.
export LC_ALL=C

state=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}
line_break='
'

# clean: filter; whatever bytes come in, printable ASCII and line breaks come out.
clean() {
  sed 's/\r$//; s/\t/ /g; s/[^ -~]/?/g'
}

# say TEXT...: one line to the container's log.
say() {
  case $* in
    *[!\ -~]*) printf '%s\n' "$*" | clean ;;
    *) printf '%s\n' "$*" ;;
  esac
}

# data FILE BYTES: sets $text to at most so many bytes of a regular file, cleaned; fails if there is none. Follows no link.
data() {
  text=
  [ -f "$1" ] || return 1
  text=$(dd if="$1" iflag=nofollow,nonblock,fullblock,count_bytes bs=65536 count="$2" status=none 2>/dev/null) || return 1
  case $text in *[!\ -~$line_break]*) text=$(printf '%s\n' "$text" | clean) ;; esac
}

# put FILE TEXT [sync]: the text becomes the file's content, whole or not at all, and never through a link.
# noclobber: the temporary file is a new one. mv -T: a directory in the place of the file is an error, a link is replaced.
put() {
  local new="${1%/*}/.${1##*/}.new" code=0
  { [ ! -e "$new" ] && [ ! -L "$new" ]; } || rm -rf "$new"
  set -C
  # cat says what the system says; the shell only "I/O error"
  { printf '%s\n' "$2" 2>/dev/null >"$new" || printf '%s\n' "$2" | cat >|"$new"; } &&
    { [ -z "${3-}" ] || sync "$new"; } && mv -fT "$new" "$1" || code=1
  set +C
  [ "$code" -eq 0 ] || rm -f "$new"
  return "$code"
}

# bounded SECONDS COMMAND...: runs a program with a time limit; what it prints, up to 256 KiB, becomes $text. Exit code: the
# program's; 124 if the time limit ended it.
# The output goes to a file: a pipe would be held open by a daemon that the program leaves behind. Without the signal that
# comes with it, the limit of the file's size is an error of write(2), which most programs survive.
bounded() {
  local seconds=$1 file="$state/$own/.output" code=0
  shift
  { [ -f "$file" ] && [ ! -L "$file" ]; } || rm -rf "$file"
  (ulimit -f 512 && trap '' XFSZ && exec timeout -k 5 "$seconds" "$@") >"$file" 2>&1 </dev/null || code=$?
  data "$file" 262144 || :
  [ "$code" -ne 137 ] || code=124
  return "$code"
}

# shorten LENGTH TEXT: sets $shortened.
shorten() {
  shortened=$2
  [ "${#2}" -le "$1" ] || shortened=$(printf "%.$(($1 - 3))s..." "$2")
}

# tell TEXT: the container's termination message, which goes to the log too.
# What is longer than 3,000 bytes would lose its beginning: the kubelet keeps the end of 4,096.
tell() {
  say "$1"
  printf '%.2999s\n' "$1" 2>/dev/null >"${ISTIO_OS_INIT_TERMINATION_LOG:-/dev/termination-log}" || :
}

# tell_outcome: tells the record that was written or read last.
tell_outcome() {
  tell "$line${error:+$line_break  the kernel says: $error}"
}

# conclude REASON SUBJECT: the container's one conclusion: record, log and termination message; for explain, what explain.awk finds in
# $facts. In: round, error, backends, findings; before, reasons that come first. Fails, having said so, if it cannot write.
conclude() {
  local given=$1 subject=$2 record uptime=0
  shift 2
  [ "$given" != explain ] || set -- -f "${0%/*}/explain.awk"
  { read -r uptime _ </proc/uptime; } 2>/dev/null || :
  record=$(
    export files="${0%/*}" before="${before-}" given subject round="${round:-0}" uptime="${uptime%.*}" error="${error-}" backend="${backends-}" findings="${findings-}"
    exec awk -f "$files/text.awk" "$@" -f "$files/outcome.awk" <<END
${facts-}
END
  )
  if parse_outcome "$record" && put "$state/$own/outcome" "$record"; then
    tell_outcome
  else
    # What was there before would stand for what is known now.
    rm -rf "$state/$own/outcome"
    tell "StateUnwritable: this node does not count as proven, since $state/$own cannot be written. Lost is: ${line:-$given: $subject}"
    return 1
  fi
}

# read_outcome WRITER: sets status, round, uptime, reason (the first one's name), line, message, error, reasons and findings
# from a writer's record; fails if there is none, or none that makes sense.
read_outcome() {
  data "$state/$1/outcome" 16384 && parse_outcome "$text"
}

parse_outcome() {
  local key value
  round='' uptime=0 status='' reason='' line='' message='' reasons='' error='' findings=''
  while read -r key value; do
    case $key in
      round) round=$value ;;
      uptime) uptime=$value ;;
      status) status=$value ;;
      line) shorten 2900 "$value" && line=$shortened ;;
      message) shorten 1000 "$value" && message=$shortened ;;
      error) error=$value ;;
      backend | path | ambient) findings="$findings$key $value$line_break" ;;
      reason)
        case $value in '' | *[!A-Za-z]*) return 1 ;; esac
        [ "${#value}" -le 40 ] || return 1
        reason=${reason:-$value}
        reasons="$reasons$key $value$line_break"
        ;;
      subject | sentence | fix) reasons="$reasons$key $value$line_break" ;;
    esac
  done <<END
$1
END
  case $status in True | False | Unknown) ;; *) return 1 ;; esac
  case $round:$uptime in *[!0-9:]* | :* | *: | 0?*:* | *:0?*) return 1 ;; esac
  [ "${#round}" -le 9 ] && [ "${#uptime}" -le 11 ] && [ -n "$reason" ]
}

# find_outcome: read_outcome for the node; sets $writer too. load begins a round; in it verify, verify-traffic and watch may say more, each only as long as nothing is
# decided, except that watch, which runs longest, may also say that what was proven holds no more. Nothing that is not of load's
# round counts; if load has recorded none, which is round 0, only watch may say so. Without anything: Unknown, and $reason is empty.
find_outcome() {
  local candidate current=0 decided=Unknown record=
  writer=
  for candidate in load verify traffic watch; do
    read_outcome "$candidate" || continue
    [ "$candidate" != load ] || current=$round
    [ "$round" = "$current" ] || continue
    case $candidate:$status in
      watch:False) ;;
      watch:*) continue ;;
      *) [ "$decided" = Unknown ] && [ "$current" != 0 ] || continue ;;
    esac
    writer=$candidate decided=$status record=$text
  done
  parse_outcome "$record" && return
  status=Unknown round=0 message='load and verify have not ended yet.'
  line="Proving: $message"
}

# in_form FORM: filter; report.awk or config.awk prints its input so.
in_form() {
  form=$1 awk -f "${0%/*}/text.awk" -f "${0%/*}/report.awk" -f "${0%/*}/config.awk"
}

# print_outcome FORM: prints what find_outcome has found, and $facts.
print_outcome() {
  {
    printf 'node %s\nround %s\nstatus %s\nline %s\nmessage %s\n' "$node" "$round" "$status" "$line" "$message"
    printf 'error %s\n%s%sfacts\n%s\n' "$error" "$reasons" "$findings" "${facts-}"
  } | in_form "$1"
}

# end_at_once "$@": for the beginning of a script that waits for other programs: SIGTERM ends it.
# The kernel spares process 1 every signal that it has no handler for, and the shell runs its handlers only between two
# commands: so as process 1 it starts itself once more, and has nothing to do but to end, and all with it.
end_at_once() {
  [ "$$" -eq 1 ] || return 0
  trap 'exit 143' TERM INT
  /bin/sh "$0" "$@" &
  wait "$!"
  exit
}
