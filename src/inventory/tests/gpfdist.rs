//! `target.gpfdist`.

use super::faults::one;
use super::*;

const TARGET: &str = "gp6/d }";

fn gpfdist(keys: &str) -> Gpfdist {
    read(&SMALL.replace(TARGET, &format!("gp6/d, gpfdist: {keys} }}"))).unwrap().target.gpfdist
}

/// Keys of `gpfdist` with one fault, where the `§` stands.
#[track_caller]
fn fault(keys: &str, key: &str, words: &str) {
    let key = format!("target.gpfdist{}{key}", if key.is_empty() { "" } else { "." });
    one(TARGET, &format!("gp6/d, gpfdist: {keys} }}"), &key, words);
}

#[test]
fn one_is_started_here_over_the_mount_where_nothing_is_said() {
    let Gpfdist::Started(rule) = read(SMALL).unwrap().target.gpfdist else { panic!("none is started") };
    assert_eq!(
        (rule.mount.as_path(), rule.ports, rule.max_line),
        (Path::new("/mnt/x"), 8080..=8180, 1 << 20)
    );
    assert_eq!((rule.host, rule.address, rule.bind, rule.path), (None, None, None, None));
}

#[test]
fn every_key_is_read() {
    let keys = "{ host: gpadmin@etl1, address: etl1.lan, bind: 10.0.0.5, path: /gp/bin/gpfdist, \
                ports: 9000-9010, mount: /data/share, max_line: 4MiB }";
    let Gpfdist::Started(rule) = gpfdist(keys) else { panic!("none is started") };
    assert_eq!((rule.host.as_deref(), rule.address.as_deref()), (Some("gpadmin@etl1"), Some("etl1.lan")));
    assert_eq!(
        (rule.bind.as_deref(), rule.path.as_deref()),
        (Some("10.0.0.5"), Some(Path::new("/gp/bin/gpfdist")))
    );
    assert_eq!(
        (rule.ports, rule.mount.as_path(), rule.max_line),
        (9000..=9010, Path::new("/data/share"), 4 << 20)
    );
    let Gpfdist::Started(one) = gpfdist("{ ports: 8080, address: \"fd00::1\" }") else {
        panic!("none is started")
    };
    assert_eq!((one.ports, one.address.as_deref()), (8080..=8080, Some("fd00::1")));
}

#[test]
fn gpload_has_the_same_keys_but_for_those_of_a_server() {
    let gpload = |keys: &str| {
        read(&SMALL.replace(TARGET, &format!("gp6/d, loader: gpload, gpload: {keys} }}"))).unwrap().target
    };
    let target = gpload("{ host: gpadmin@etl1, path: /gp/bin/gpload, ports: 9000-9010 }");
    assert_eq!(target.loader, Loader::Gpload);
    let rule = target.gpload;
    assert_eq!(
        (rule.host.as_deref(), rule.path.as_deref()),
        (Some("gpadmin@etl1"), Some(Path::new("/gp/bin/gpload")))
    );
    assert_eq!((rule.ports, rule.mount.as_path()), (9000..=9010, Path::new("/mnt/x")));
    assert_eq!(read(SMALL).unwrap().target.gpload.ports, 8080..=8180);
    for key in ["bind: 10.0.0.5", "url: \"gpfdist://e:1/\"", "password: x"] {
        let name = key.split(':').next().unwrap();
        one(TARGET, &format!("gp6/d, gpload: {{ §{key} }} }}"), &format!("target.gpload.{name}"), "");
    }
}

#[test]
fn one_that_runs_already_is_named_by_its_url() {
    for (url, kept) in [
        ("gpfdist://etl1:8081", "gpfdist://etl1:8081/"),
        ("gpfdists://[fd00::1]:8081/share/file2GP/", "gpfdists://[fd00::1]:8081/share/file2GP/"),
    ] {
        assert_eq!(gpfdist(&format!("{{ url: \"{url}\" }}")), Gpfdist::Given { url: kept.into() });
    }
}

#[test]
fn what_no_gpfdist_can_be_is_refused_where_it_stands() {
    for (url, words) in [
        ("http://etl1:8081/", "does not start with gpfdist://"),
        ("gpfdist://etl1/", "names no port"),
        ("gpfdist://etl1:0/", "not a port"),
        ("gpfdist://fd00::1:8081/", "no name and no address"),
        ("gpfdist://etl1:8081/a b/", "more than letters"),
        ("gpfdist://etl1:8081/*/", "more than letters"),
        ("gpfdist://etl1:8081/../", "more than letters"),
        ("gpfdist://me:pw@etl1:8081/", "a password stands in the URL"),
    ] {
        fault(&format!("{{ url: §\"{url}\" }}"), "url", words);
    }
    fault("{ url: \"gpfdist://e:1/\", §ports: 8080 }", "ports", "keep one of the two");
    fault("{ §port: 8080 }", "port", "did you mean `ports`?");
    fault("{ §password: x }", "password", "a secret does not belong in an inventory");
    for ports in ["8180-8080", "0", "70000", "a-b", "80-90-100"] {
        fault(&format!("{{ ports: §{ports} }}"), "ports", "not a range of ports");
    }
    fault("{ max_line: §8KiB }", "max_line", "from 32KiB to 256MiB");
    fault("{ max_line: §1GiB }", "max_line", "from 32KiB to 256MiB");
    fault("{ address: §\"etl1; rm\" }", "address", "not that of a host");
    fault("{ bind: §etl1 }", "bind", "not that of a host");
    fault("{ path: §gpfdist }", "path", "absolute");
    fault("{ mount: §share }", "mount", "absolute");
    fault("{ host: §\"-oProxyCommand=x\" }", "host", "");
}
