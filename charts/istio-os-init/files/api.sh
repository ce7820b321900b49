# Sourced after outcome.sh: how a script speaks to the API server.
#
# ask CURL-OPTION...           runs curl with the token and with what stdin adds to curl's configuration. The token is not an argument:
#                              every process can read arguments in /proc.
# request PATH CURL-OPTION...  sets $answer to the API server's answer. Fails if there is none or if it is an error, and sets $words to
#                              curl's error message and the API server's.
#
# In: ISTIO_OS_INIT_API      URL of the API server. Default: the address that Kubernetes gives to every pod.
#     ISTIO_OS_INIT_ACCOUNT  directory with token and ca.crt. Default /var/run/secrets/kubernetes.io/serviceaccount.
# shellcheck shell=dash

account=${ISTIO_OS_INIT_ACCOUNT:-/var/run/secrets/kubernetes.io/serviceaccount}
host=${KUBERNETES_SERVICE_HOST-}
case $host in *:*) host="[$host]" ;; esac
api=${ISTIO_OS_INIT_API:-https://$host:${KUBERNETES_SERVICE_PORT-443}}

# The user agent: to curl's own the API server answers in indented lines.
ask() {
  {
    printf 'header = "Authorization: Bearer %s"\n' "$(cat "$account/token")"
    cat
  } | curl --config - --cacert "$account/ca.crt" --noproxy '*' --user-agent istio-os-init --silent --max-time 5 "$@"
}

# shellcheck disable=SC2034 # words is for the scripts that source this
request() {
  local path=$1
  shift
  # the outer one is for the shell's message if a signal ends curl
  { answer=$(ask --show-error --fail-with-body "$@" "$api/$path" 2>&1 </dev/null); } 2>/dev/null && return
  words="curl: ${answer##*curl: }"
  words=${words%%"$line_break"*}
  case $answer in
    *'"message":"'*)
      answer=${answer#*'"message":"'}
      words="$words: ${answer%%'","'*}"
      ;;
  esac
  return 1
}
