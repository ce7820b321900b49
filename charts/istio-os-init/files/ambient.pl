# ambient.pl: makes or removes a set of addresses as Istio's CNI agent makes them: hash:ip, with comments. Neither of Istio's images has
# the program ipset.
#
# Usage: perl ambient.pl create|destroy 4|6 NAME   in the pod's own network namespace; needs CAP_NET_ADMIN
# Out:   nothing; or a line with what the kernel said
# Exit:  0 done; 1 refused
# Facts: linux/netfilter/nfnetlink.h and linux/netfilter/ipset/ip_set.h; the agent's request is cni/pkg/ipset of Istio.
use strict;
use warnings;
use Socket qw(SOCK_RAW AF_INET AF_INET6);

my ($what, $ip, $name) = @ARGV;
my $family = $ip == 6 ? AF_INET6 : AF_INET;

sub attribute {
    my ($type, $data) = @_;
    my $text = pack("SS", 4 + length $data, $type) . $data;
    return $text . "\0" x (-length($text) % 4);
}

my ($command, $flags) = (3, 0x5);                                       # IPSET_CMD_DESTROY; NLM_F_REQUEST, NLM_F_ACK
my $request = attribute(1, pack "C", 6) . attribute(2, "$name\0");      # PROTOCOL, SETNAME
if ($what eq "create") {
    ($command, $flags) = (2, 0x605);                                    # IPSET_CMD_CREATE; NLM_F_CREATE, NLM_F_EXCL too
    my $options = attribute(0x4000 | 8, pack "N", 1 << 4);              # CADT_FLAGS: IPSET_FLAG_WITH_COMMENT
    $request .= attribute(3, "hash:ip\0") . attribute(4, pack "C", 0) . attribute(5, pack "C", $family) . attribute(0x8000 | 7, $options);
}
$request = pack("SSLLCCn", 6 << 8 | $command, $flags, 1, 0, $family, 0, 0) . $request;
alarm 10;
socket(my $socket, 16, SOCK_RAW, 12) or fail("$!");                     # AF_NETLINK, NETLINK_NETFILTER
send($socket, pack("L", 4 + length $request) . $request, 0) or fail("$!");
recv($socket, my $answer, 4096, 0);
fail("no answer") if length($answer // "") < 20;
my $error = unpack("x16l", $answer);
fail($error == -4098 ? "unknown type" : do { local $! = -$error; "$!" }) if $error; # IPSET_ERR_FIND_TYPE

sub fail {
    print "a set of type hash:ip is not supported: @_\n";
    exit 1;
}
