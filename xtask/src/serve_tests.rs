//! The server over a real connection, with a folder made for the test.

use std::fs;

use tempfile::TempDir;

use super::*;

/// A server over a folder with a page, a module and ten bytes of data; a secret lies beside the folder.
fn server() -> (TempDir, SocketAddr) {
    served(|site| site)
}

/// The same, served otherwise.
fn served(how: impl FnOnce(Site) -> Site) -> (TempDir, SocketAddr) {
    let folder = tempfile::tempdir().unwrap();
    let www = folder.path().join("www");
    fs::create_dir_all(www.join("sub dir")).unwrap();
    fs::write(www.join("index.html"), "<p>hello").unwrap();
    fs::write(www.join("sub dir/module.js"), "export {};").unwrap();
    fs::write(www.join("data.gguf"), "0123456789").unwrap();
    fs::write(www.join(".hidden"), "hidden").unwrap();
    fs::write(folder.path().join("secret.txt"), "secret").unwrap();
    fs::create_dir(folder.path().join("pkg")).unwrap();
    fs::write(folder.path().join("pkg/index.js"), "package").unwrap();
    let mounts = vec![("/pkg/", folder.path().join("pkg")), ("/", www)];
    let address = start(0, how(Site { mounts, peers: false })).unwrap();
    (folder, address)
}

/// Sends a request's first line and more headers; gives the answer's head and body.
fn ask(address: SocketAddr, line: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{line} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn other_engines_run_where_they_are_asked_for() {
    let allowed = |address| {
        let (head, _) = ask(address, "GET /", "");
        let said = |text| head.contains(text);
        [said("Cross-Origin-Embedder-Policy: require-corp\r\n"), said("worker-src 'self' blob:;")]
    };
    let (_folder, address) = server();
    assert_eq!(allowed(address), [false, false]);
    let (folder, address) = served(|site| site.with_peers(Path::new("nowhere")));
    assert_eq!(allowed(address), [true, true]);
    drop(folder);
}

#[test]
fn files_come_with_their_types_and_the_policy() {
    let (_folder, address) = server();
    let (head, body) = ask(address, "GET /", "");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/html; charset=utf-8"), "{head}");
    assert!(
        head.contains("Content-Security-Policy: default-src 'none'; script-src 'self' 'wasm-unsafe-eval';"),
        "{head}"
    );
    assert!(!head.contains("Cross-Origin-Embedder-Policy"), "{head}");
    assert_eq!(body, "<p>hello");
    let (head, _) = ask(address, "GET /sub%20dir/module.js?x=1", "");
    assert!(head.contains("Content-Type: text/javascript"), "{head}");
    let (_, body) = ask(address, "GET /pkg/index.js", "");
    assert_eq!(body, "package");
}

#[test]
fn ranges_are_served() {
    let (_folder, address) = server();
    for (range, status, body) in [
        ("bytes=2-4", "206", "234"),
        ("bytes=7-", "206", "789"),
        ("bytes=-2", "206", "89"),
        ("bytes=8-99", "206", "89"),
        ("bytes=10-", "416", ""),
        ("bytes=-0", "416", ""),
        ("bytes=0-1,3-4", "200", "0123456789"),
        ("items=0-1", "200", "0123456789"),
    ] {
        let (head, got) = ask(address, "GET /data.gguf", &format!("Range: {range}\r\n"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{range}: {head}");
        assert_eq!(got, body, "{range}");
    }
    let (head, body) = ask(address, "HEAD /data.gguf", "");
    assert!(head.contains("Content-Length: 10") && head.contains("Accept-Ranges: bytes"), "{head}");
    assert_eq!(body, "");
}

#[test]
fn nothing_else_is_served() {
    let (_folder, address) = server();
    for path in
        ["/../secret.txt", "/%2e%2e/secret.txt", "/..%5csecret.txt", "/.hidden", "/missing", "/%zz", "/%ff", "*"]
    {
        let (head, body) = ask(address, &format!("GET {path}"), "");
        assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
        assert!(!body.contains("secret") && !body.contains("hidden"), "{path}: {body}");
    }
    let (head, _) = ask(address, "POST /", "");
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
}

#[test]
fn an_endless_head_is_not_read() {
    let (_folder, address) = server();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The server closes at its limit, so the rest may not be taken any more.
    stream.write_all(format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(40_000)).as_bytes()).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    assert!(answer.is_empty());
}
