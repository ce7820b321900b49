# paths.pl: sends traffic through the rules that verify has applied, in the pod's own network namespace, with uid 0 and istio-init's
# capabilities, and looks where it arrives. verify-traffic does so as the proxy's user, whom most rules let pass.
#
# Usage: perl paths.pl REDIRECT|TPROXY true|false FAMILY...   the mode; whether DNS is captured; 4, or 4 and 6
# Out:   "path PATH FAMILY arrived|lost" a line for outbound, inbound and dns; "path PATH FAMILY untried WHY" if the pod cannot try it.
#        What comes from outside enters by one end of a veth pair, whose other end stays in the pod.
# Exit:  0; otherwise perl's. Ends within 60 s.
# Facts: ports 15001, 15006 and 15053 are those of istio-init's arguments and of Istio's DNS proxy; of 15020 they exclude inbound
#        traffic. Addresses of RFC 5737 and RFC 3849.
use strict;
use warnings;
use Socket qw(:DEFAULT :addrinfo inet_pton inet_ntop pack_sockaddr_in6 AF_INET6 IPPROTO_TCP SOCK_NONBLOCK);

my ($mode, $dns, @families) = @ARGV;
my ($near, $far) = ("osi-near", "osi-far");
my ($near_mac, $far_mac) = ("02:00:00:00:00:01", "02:00:00:00:00:02");
my $far_port = 32768 + int rand 28000; # the kernel remembers an earlier start's connection
my %family = (
    4 => { af => AF_INET,  level => 0,  transparent => 19, near => "203.0.113.1", far => "203.0.113.2", other => "203.0.113.3", bits => 29, type => 0x0800 },
    6 => { af => AF_INET6, level => 41, transparent => 75, near => "2001:db8:1337::1", far => "2001:db8:1337::2", other => "2001:db8:1337::3", bits => 64, type => 0x86dd },
);
$| = 1; # what was found is told even if this is ended
alarm 60;

# said PATH FAMILY WHAT: one line of the result.
sub said { print "path @_\n" }

sub address {
    my ($f, $name, $port) = @_;
    my $bytes = inet_pton($f->{af}, $name);
    return $f->{af} == AF_INET ? pack_sockaddr_in($port, $bytes) : pack_sockaddr_in6($port, $bytes);
}

# listener FAMILY TYPE PORT: a socket on every address, to which TPROXY may hand what is meant for others; undef if the port is taken.
sub listener {
    my ($f, $type, $port) = @_;
    socket(my $socket, $f->{af}, $type, 0) or return;
    setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1);
    setsockopt($socket, 41, 26, 1) if $f->{af} == AF_INET6; # IPV6_V6ONLY
    setsockopt($socket, $f->{level}, $f->{transparent}, 1);
    bind($socket, address($f, $f->{af} == AF_INET ? "0.0.0.0" : "::", $port)) or return;
    listen($socket, 1) or return if $type == SOCK_STREAM;
    return $socket;
}

# port ADDRESS: the port of a socket's address; both families have it in the same place.
sub port { return unpack("x2n", $_[0]) }

# readable SOCKET: whether something comes within two seconds.
sub readable {
    my $bits = "";
    vec($bits, fileno($_[0]), 1) = 1;
    return select($bits, undef, undef, 2) > 0;
}

sub outbound {
    my ($n, $f) = @_;
    my $server = listener($f, SOCK_STREAM, 15001) or return said("outbound", $n, "untried port 15001 is taken");
    socket(my $client, $f->{af}, SOCK_STREAM | SOCK_NONBLOCK, 0) or return said("outbound", $n, "untried no socket: $!");
    connect($client, address($f, $f->{far}, 80));
    my $end = time + 6; # until then the kernel sends it again twice
    while (time < $end) {
        next unless readable($server) && (my $peer = accept(my $taken, $server));
        return said("outbound", $n, "arrived") if port($peer) == port(getsockname($client));
    }
    said("outbound", $n, "lost");
}

sub dns {
    my ($n, $f, $nameserver) = @_;
    my $server = listener($f, SOCK_DGRAM, 15053) or return said("dns", $n, "untried port 15053 is taken");
    socket(my $client, $f->{af}, SOCK_DGRAM, 0) or return said("dns", $n, "untried no socket: $!");
    my $query = "istio-os-init " . join("", map { chr(97 + int rand 26) } 1 .. 32); # no other's counts
    for (1 .. 3) {
        send($client, $query, 0, address($f, $nameserver, 53)) or return said("dns", $n, "untried no route to $nameserver");
        my $end = time + 2;
        while (time <= $end && readable($server)) {
            recv($server, my $text, 2048, 0);
            return said("dns", $n, "arrived") if $text eq $query;
        }
    }
    said("dns", $n, "lost");
}

sub checksum {
    my ($data) = @_;
    my $sum = unpack("%32n*", length($data) % 2 ? "$data\0" : $data);
    $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
    return ~$sum & 0xffff;
}

# syn FAMILY TO PORT: the first packet of a connection from the far address, without the frame's header.
sub syn {
    my ($f, $to, $port) = @_;
    my ($from, $dest) = map { inet_pton($f->{af}, $_) } $f->{far}, $to;
    my $tcp = pack("nnNNCCnnn", $far_port, $port, 1, 0, 5 << 4, 2, 64240, 0, 0);
    my $pseudo = $from . $dest . ($f->{af} == AF_INET ? pack("xCn", 6, 20) : pack("NxxxC", 20, 6));
    substr($tcp, 16, 2) = pack("n", checksum($pseudo . $tcp));
    return pack("NnCCa16a16", 6 << 28, 20, 6, 64, $from, $dest) . $tcp if $f->{af} == AF_INET6;
    my $header = pack("CCnnnCCna4a4", 0x45, 0, 40, 1, 0, 64, 6, 0, $from, $dest);
    substr($header, 10, 2) = pack("n", checksum($header));
    return $header . $tcp;
}

# answer WIRE FAMILY HEADER TO PORT: sends such a packet through the wire, up to three times, each as a new connection, and returns the flags
# of TCP that come back; 0 if nothing does.
sub answer {
    my ($wire, $f, $header, $to, $port) = @_;
    my $from = inet_pton($f->{af}, $to);
    for (1 .. 3) {
        $far_port++;
        send($wire, $header . pack("n", $f->{type}) . syn($f, $to, $port), 0);
        while (readable($wire)) {
            recv($wire, my $frame, 2048, 0);
            next unless length($frame) >= 54 && unpack("n", substr($frame, 12, 2)) == $f->{type};
            my ($source, $tcp) = $f->{af} == AF_INET ? (substr($frame, 26, 4), substr($frame, 34)) : (substr($frame, 22, 16), substr($frame, 54));
            next unless length($tcp) >= 14 && $source eq $from;
            my ($local, $peer, $flags) = unpack("nnx8xC", $tcp);
            return $flags if $local == $port && $peer == $far_port;
        }
    }
    return 0;
}

# inbound: only the listener on 15006 accepts, and only mangle or nat, and with TPROXY the policy route, bring a connection there. The
# control first: a port that istio-init excludes, where the kernel itself answers that nothing listens.
sub inbound {
    my ($n, $f, $index, $header) = @_;
    my $server = listener($f, SOCK_STREAM, 15006) or return said("inbound", $n, "untried port 15006 is taken");
    my $wire; # AF_PACKET, ETH_P_ALL
    socket($wire, 17, SOCK_RAW, unpack("S", pack("n", 3))) && bind($wire, pack("SnlSCCa8", 17, 3, $index, 0, 0, 6, ""))
        or return said("inbound", $n, "untried no raw socket: $!");
    answer($wire, $f, $header, $f->{near}, 15020) & 4 or return said("inbound", $n, "untried nothing comes through a veth pair");
    my $flags = answer($wire, $f, $header, $mode eq "TPROXY" ? $f->{other} : $f->{near}, 9999);
    said("inbound", $n, ($flags & 18) == 18 ? "arrived" : "lost");
}

# nameservers: of each family the first in resolv.conf, as istio-init reads it.
sub nameservers {
    my %first;
    open(my $file, "<", "/etc/resolv.conf") or return %first;
    while (defined(my $line = <$file>)) {
        next unless $line =~ /^nameserver\s+([0-9A-Fa-f:.]+)\s*$/;
        next if $1 =~ /^(127\.|::1$)/; # which the rules let pass
        $first{ index($1, ":") < 0 ? 4 : 6 } //= $1;
    }
    return %first;
}

# there DEVICE: whether there is one, without asking the kernel for a name that it does not know: it would look for a module of this name,
# and SELinux would deny and record that.
sub there {
    open(my $file, "<", "/proc/self/net/dev") or return;
    return grep { /^\s*\Q$_[0]\E:/ } <$file>;
}

# outside: makes the veth pair, with addresses near and neighbours far, in one process. What cannot be done is seen by who needs it.
sub outside {
    local $SIG{PIPE} = "IGNORE"; # of an ip that ends before it has read all
    open(my $ip, "|-", "ip", "-force", "-batch", "-") or return;
    print $ip "link delete $near\n" if there($near); # an earlier start's
    print $ip "link add $near address $near_mac type veth peer name $far address $far_mac\nlink set $far up\nlink set $near up\n";
    for my $n (@families) {
        my $f = $family{$n};
        print $ip "address add $f->{near}/$f->{bits} dev $near", $n == 6 ? " nodad" : "", "\n";
        print $ip "neighbour add $f->{far} lladdr $far_mac dev $near nud permanent\n";
    }
    close($ip);
}

# has FAMILY: whether the near address is there.
sub has {
    my ($f) = @_;
    socket(my $socket, $f->{af}, SOCK_DGRAM, 0) or return;
    return bind($socket, address($f, $f->{near}, 0));
}

# index_of DEVICE: its number; 0 if there is none.
sub index_of {
    there($_[0]) or return 0;
    socket(my $socket, AF_INET, SOCK_DGRAM, 0) or return 0;
    my $request = pack("a16x24", $_[0]);
    return ioctl($socket, 0x8933, $request) ? unpack("x16i", $request) : 0; # SIOCGIFINDEX
}

open(STDERR, ">", "/dev/null");
outside();
my $index = index_of($far);
my %nameserver = nameservers();
for my $n (@families) {
    my $f = $family{$n};
    if ($index && has($f)) {
        outbound($n, $f);
        inbound($n, $f, $index, pack("H12H12", map { tr/://dr } $near_mac, $far_mac));
    }
    else {
        said($_, $n, $index ? "untried no address of the family can be given" : "untried no veth pair can be made") for "outbound", "inbound";
    }
    dns($n, $f, $nameserver{$n}) if $dns eq "true" && $nameserver{$n};
}
said("dns", 4, "untried no nameserver that the rules capture") if $dns eq "true" && !%nameserver;
system("ip", "link", "delete", $near) if there($near);
