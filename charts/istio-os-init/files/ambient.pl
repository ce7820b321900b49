# ambient.pl: applies ambient.iptables beside the set of addresses that it names, which is made as Istio's CNI agent makes its own: hash:ip,
# with comments. Neither of Istio's images has the program ipset.
#
# Usage: perl ambient.pl 4|6 RESTORE   RESTORE: the program for this family, e.g. ip6tables-nft-restore. In the pod's own network namespace;
#                                      needs CAP_NET_ADMIN.
# Out:   what the kernel said. The set, and the rules that name it, are gone afterwards.
# Exit:  0 the kernel takes set and rules; 1 not
# Facts: linux/netfilter/nfnetlink.h and linux/netfilter/ipset/ip_set.h; the agent's request is that of cni/pkg/ipset of Istio.
use strict;
use warnings;
use Socket qw(SOCK_RAW AF_INET AF_INET6);

my ($ip, $restore) = @ARGV;
my ($family, $address) = $ip == 6 ? (AF_INET6, "fd16:9254:7127:1337:ffff:ffff:ffff:ffff") : (AF_INET, "169.254.7.127");

sub attribute {
    my ($type, $data) = @_;
    my $text = pack("SS", 4 + length $data, $type) . $data;
    return $text . "\0" x (-length($text) % 4);
}

# ask COMMAND FLAGS ATTRIBUTE...: a request about the set; returns what the kernel said, empty if it did it.
sub ask {
    my ($command, $flags, @attributes) = @_;
    my $request = pack("SSLLCCn", 6 << 8 | $command, $flags, 1, 0, $family, 0, 0)
        . join("", attribute(1, pack "C", 6), attribute(2, "ISTIO_OS_INIT\0"), @attributes); # PROTOCOL, SETNAME
    socket(my $socket, 16, SOCK_RAW, 12) or return "$!"; # AF_NETLINK, NETLINK_NETFILTER
    send($socket, pack("L", 4 + length $request) . $request, 0) or return "$!";
    recv($socket, my $answer, 4096, 0);
    return "no answer" if length($answer // "") < 20;
    my $error = -unpack("x16l", $answer);
    return "unknown type" if $error == 4098; # IPSET_ERR_FIND_TYPE
    $! = $error;
    return $error ? "$!" : "";
}

# create: NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL and NLM_F_CREATE; TYPENAME, REVISION, FAMILY, and DATA with the flag WITH_COMMENT.
sub create {
    my $options = attribute(0x4000 | 8, pack "N", 1 << 4);
    return ask(2, 0x605, attribute(3, "hash:ip\0"), attribute(4, pack "C", 0), attribute(5, pack "C", $family), attribute(0x8000 | 7, $options));
}

# restore RULES: whether the kernel takes them.
sub restore {
    open(my $rules, "|-", $restore, "--noflush", "/dev/stdin") or return;
    print $rules @_;
    return close($rules);
}

# destroy: a set that a rule names cannot be removed, so the rules go first. An earlier start may have left both.
sub destroy { return restore("*nat\n:ISTIO_OS_INIT - [0:0]\nCOMMIT\n") && ask(3, 0x5) }

sub fail {
    print @_;
    exit 1;
}

$SIG{PIPE} = "IGNORE";
(my $folder = $0) =~ s{[^/]*$}{};
open(my $file, "<", "${folder}ambient.iptables") or fail("ambient.iptables: $!\n");
# the file has lost its last line break (_config.tpl), and iptables-legacy-restore knows no COMMIT without one
my $rules = join("", <$file>) =~ s/ADDRESS/$address/gr . "\n";
destroy();
my $refusal = create();
fail("a set of type hash:ip is not supported: $refusal\n") if $refusal;
my $taken = restore($rules);
destroy();
exit($taken ? 0 : 1);
