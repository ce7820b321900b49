# Sourced: how a script speaks to the API server.
#
# request PATH CURL-OPTION...  the API server's answer in $answer; fails, with curl's words in $words, where there is none or it
#                              is an error. The token goes in by standard input: arguments can be read in /proc.
#
# In: ISTIO_OS_INIT_API      the API server. Default: where Kubernetes tells every pod that it is.
#     ISTIO_OS_INIT_ACCOUNT  directory with token and ca.crt. Default /var/run/secrets/kubernetes.io/serviceaccount.
# To curl the API server talks in indented lines unless asked with pretty=false.
# shellcheck shell=sh

account=${ISTIO_OS_INIT_ACCOUNT:-/var/run/secrets/kubernetes.io/serviceaccount}
host=${KUBERNETES_SERVICE_HOST-}
case $host in *:*) host="[$host]" ;; esac
api=${ISTIO_OS_INIT_API:-https://$host:${KUBERNETES_SERVICE_PORT-443}}

request() {
  path=$1
  shift
  answer=$(printf 'header = "Authorization: Bearer %s"\n' "$(cat "$account/token")" |
    curl --config - --cacert "$account/ca.crt" --noproxy '*' --silent --show-error --fail --max-time 5 "$@" "$api/$path" 2>&1) || {
    # shellcheck disable=SC2034 # for those who source this
    words=$answer
    return 1
  }
}
