//! The keywords of ssh_config(5), sorted by what gpferry makes of them. One that is in neither list is refused
//! where it is set.

/// Keywords that gpferry honours, by their names in the output of `ssh -G`.
pub(super) const HONOURED: &[&str] = &[
    "addressfamily",
    "ciphers",
    "connecttimeout",
    "globalknownhostsfile",
    "host",
    "hostkeyalgorithms",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "kexalgorithms",
    "macs",
    "nohostauthenticationforlocalhost",
    "port",
    "preferredauthentications",
    "pubkeyacceptedalgorithms",
    "pubkeyacceptedkeytypes",
    "pubkeyauthentication",
    "requiredrsasize",
    "stricthostkeychecking",
    "user",
    "userknownhostsfile",
];

/// Keywords that cannot change what gpferry does or how safe it is: forwarding, terminals, multiplexing, other
/// ways to log in than by key, and liveness, of which it has its own.
pub(super) const HARMLESS: &[&str] = &[
    "addkeystoagent",
    "batchmode",
    "canonicaldomains",
    "canonicalizefallbacklocal",
    "canonicalizehostname",
    "canonicalizemaxdots",
    "canonicalizepermittedcnames",
    "casignaturealgorithms",
    "challengeresponseauthentication",
    "channeltimeout",
    "checkhostip",
    "clearallforwardings",
    "compression",
    "connectionattempts",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "dynamicforward",
    "enableescapecommandline",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fingerprinthash",
    "forkafterauthentication",
    "forwardagent",
    "forwardx11",
    "forwardx11timeout",
    "forwardx11trusted",
    "gatewayports",
    "gssapiauthentication",
    "gssapiclientidentity",
    "gssapidelegatecredentials",
    "gssapikexalgorithms",
    "gssapikeyexchange",
    "gssapirenewalforcesrekey",
    "gssapiserveridentity",
    "gssapitrustdns",
    "hashknownhosts",
    "hostbasedacceptedalgorithms",
    "hostbasedauthentication",
    "hostbasedkeytypes",
    "ignoreunknown",
    "ipqos",
    "kbdinteractiveauthentication",
    "kbdinteractivedevices",
    "localcommand",
    "localforward",
    "loglevel",
    "logverbose",
    "numberofpasswordprompts",
    "obscurekeystroketiming",
    "passwordauthentication",
    "permitlocalcommand",
    "permitremoteopen",
    "proxyusefdpass",
    "rekeylimit",
    "remoteforward",
    "requesttty",
    "sendenv",
    "serveralivecountmax",
    "serveraliveinterval",
    "sessiontype",
    "setenv",
    "stdinnull",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "syslogfacility",
    "tag",
    "tcpkeepalive",
    "tunnel",
    "tunneldevice",
    "updatehostkeys",
    "verifyhostkeydns",
    "versionaddendum",
    "visualhostkey",
    "warnweakcrypto",
    "xauthlocation",
];

/// A keyword as ssh_config(5) spells it, where people have an eye for that.
pub(super) fn keyword(key: &str) -> &str {
    match key {
        "proxyjump" => "ProxyJump",
        "proxycommand" => "ProxyCommand",
        "certificatefile" => "CertificateFile",
        "remotecommand" => "RemoteCommand",
        "bindaddress" => "BindAddress",
        "bindinterface" => "BindInterface",
        "revokedhostkeys" => "RevokedHostKeys",
        "knownhostscommand" => "KnownHostsCommand",
        "pkcs11provider" => "PKCS11Provider",
        "securitykeyprovider" => "SecurityKeyProvider",
        "preferredauthentications" => "PreferredAuthentications",
        "pubkeyauthentication" => "PubkeyAuthentication",
        key => key,
    }
}

/// What to do instead of a keyword that is refused.
pub(super) fn advice(key: &str) -> &'static str {
    match key {
        "proxyjump" | "proxycommand" => {
            "it connects by itself; reach the host directly, or forward a port (`ssh -N -L`) and name that"
        }
        "certificatefile" => {
            "libssh2 sends no certificates; put the plain public key into authorized_keys there"
        }
        "pkcs11provider" | "securitykeyprovider" => "load such a key into an agent instead",
        "remotecommand" => "it runs commands of its own there",
        "revokedhostkeys" | "knownhostscommand" => "write `@revoked` and host keys into known_hosts instead",
        _ => "it has nothing that does the same",
    }
}
