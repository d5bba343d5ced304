"""The page's files: how they are served, their size, and that they load nothing from elsewhere."""

import gzip
import importlib.util
import re

import pytest

from longline_server import REPOSITORY

# The store has no part in this.
pytestmark = pytest.mark.providers("memory")

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
SOURCES = {
    "/": "web/console.html",
    "/-/chat": "web/chat.html",
    "/favicon.ico": "web/icon.svg",
    "/robots.txt": "web/robots.txt",
    "/-/web/longline.js": "clients/js/index.js",
}
SOURCES |= {f"/-/web/{file.name}": f"web/{file.name}" for file in (REPOSITORY / "web").glob("*.*") if file.suffix in (".js", ".css", ".svg")}

SIZE_MAX = 80_000  # of all files together, compressed

spec = importlib.util.spec_from_file_location("embed", REPOSITORY / "web/embed.py")
embed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(embed)

every_asset = pytest.mark.parametrize("path", sorted(SOURCES))


def source(path):
    return REPOSITORY / SOURCES[path]


def test_no_text_of_a_script_goes_over_a_lines_end():
    for path in SOURCES:
        if source(path).suffix == ".js":
            for number, line in enumerate(embed.served(source(path)).decode().splitlines(), 1):
                assert line.replace("\\`", "").count("`") % 2 == 0, f"{path}:{number}: {line}"


@every_asset
def test_an_asset_is_its_file_with_the_headers_of_a_page(server, path):
    reply = server.get(path)
    assert (reply.status, reply.body) == (200, embed.served(source(path)))
    headers = reply.headers
    assert headers["content-type"] == TYPES[source(path).suffix]
    assert headers["cache-control"] == "no-cache"
    assert headers["vary"] == "Accept-Encoding"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert re.fullmatch(r'"[\w-]+"', headers["etag"])
    assert "content-encoding" not in headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src")} == {"'self'"}
    # Only a worker that has no page connects to other servers, and only the console may start it.
    assert policy["connect-src"] == ("https: http:" if path == "/-/web/resender.js" else "'self'")
    assert policy["trusted-types"] == ("resender" if path == "/" else "'none'")
    assert policy["img-src"] == ("'self' blob:" if path == "/" else "'self'")
    assert policy["require-trusted-types-for"] == "'script'"


def test_comments_and_indentation_are_left_out_and_lines_keep_their_numbers(tmp_path):
    file = tmp_path / "x.js"
    file.write_text("// One.\nlet a = 'http://x'; // stays\n\n    /**\n     * Two.\n     */\nf(); /* stays */\n/* so */ g();\n  // Three.\n    let b = 1;\n")
    assert embed.served(file) == b"\nlet a = 'http://x'; // stays\n\n\n\n\nf(); /* stays */\n/* so */ g();\n\nlet b = 1;\n"


@every_asset
@pytest.mark.parametrize("accepted", ["gzip", "deflate, GZIP;q=0.5, *;q=0", "br,gzip", "gzip; q=1.000"])
def test_an_asset_is_compressed_for_who_takes_gzip(server, path, accepted):
    plain, reply = server.get(path), server.get(path, {"Accept-Encoding": accepted})
    assert (reply.status, reply.headers["content-encoding"]) == (200, "gzip")
    assert gzip.decompress(reply.body) == plain.body
    assert reply.headers["etag"] != plain.headers["etag"], "other bytes are another entity"
    same = ("content-type", "cache-control", "vary", "content-security-policy")
    assert [reply.headers[name] for name in same] == [plain.headers[name] for name in same]


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "gzip;q=0.000", "gzip; q=0, br", "xgzip", "br"])
def test_an_asset_is_plain_for_who_does_not(server, accepted):
    reply = server.get("/", {"Accept-Encoding": accepted})
    assert reply.status == 200 and "content-encoding" not in reply.headers
    assert reply.body == source("/").read_bytes()


@every_asset
@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_a_known_asset_is_not_sent_again(server, path, accepted):
    def ask(known, method="GET"):
        return server.request(method, path, headers={"Accept-Encoding": accepted, "If-None-Match": known})

    first = server.get(path, {"Accept-Encoding": accepted})
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", W/"another",{etag}', "*"):
        reply = ask(known)
        assert (reply.status, reply.body) == (304, b""), known
        for name in ("etag", "cache-control", "vary", "content-security-policy"):
            assert reply.headers[name] == first.headers[name]
    assert ask(etag, "HEAD").status == 304
    for known in ('"other"', etag.strip('"'), f'"x{etag[1:]}', ""):
        reply = ask(known)
        assert (reply.status, reply.body) == (200, first.body), known


def test_the_etag_of_one_encoding_is_not_the_other_ones(server):
    etag = server.get("/").headers["etag"]
    reply = server.get("/", {"Accept-Encoding": "gzip", "If-None-Match": etag})
    assert reply.status == 200 and reply.headers["content-encoding"] == "gzip"


@every_asset
@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_head_of_an_asset_is_get_without_the_body(server, path, accepted):
    get, head = (server.request(method, path, headers={"Accept-Encoding": accepted}) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (200, b"")
    # a second may have begun between the two
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
    assert int(head.headers["content-length"]) == len(get.body)


@every_asset
def test_an_asset_takes_no_other_method(server, path):
    for method in ("POST", "PUT", "DELETE"):
        reply = server.request(method, path, b"{}")
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert server.request("OPTIONS", path).status == 204


@pytest.mark.parametrize("path", ["x", "", "../web/text.js", "text.js/", "TEXT.JS", "console.html", "index.js", "embed.py", "text.js%00"])
def test_there_is_no_other_asset(server, path):
    assert server.get(f"/-/web/{path}").status in (400, 404)
    assert server.get("/-/web").status == server.get("/-/chat/").status == 404


def test_a_query_of_an_asset_is_not_looked_at(server):
    assert server.get("/?utm_source=x").body == server.get("/").body


def test_all_assets_are_small(server):
    sizes = {path: len(server.get(path, {"Accept-Encoding": "gzip"}).body) for path in SOURCES if path != "/favicon.ico"}
    assert sum(sizes.values()) < SIZE_MAX, sizes


@every_asset
def test_an_asset_loads_nothing_from_elsewhere(server, path):
    text = server.get(path).text
    loaded = re.findall(r"""(?:src|href|action)="([^"]*)"|url\(([^)]*)\)|(?:from|import)\s*\(?\s*'([^']*)'""", text)
    for address in filter(None, sum(loaded, ())):
        if "${" not in address:  # a snippet for the reader
            assert not re.match(r"[a-z]+:|//", address, re.IGNORECASE), address
    assert not re.search(r"\son\w+\s*=\s*\"|<style|<script(?![^>]*\ssrc=)|\sstyle=|innerHTML|\beval\(", text)


def test_each_file_that_the_pages_name_is_there(server):
    named = set()
    for page, base in (("/", "/"), ("/-/chat", "/-/")):
        named |= {base + address for address in re.findall(r'(?:src|href)="((?:-/)?web/[^"]+)"', server.get(page).text)}
    named |= {"/-/web/" + name for path in SOURCES for name in re.findall(r"(?:from '\./|new URL\(')([\w.]+\.js)'", server.get(path).text)}
    assert {"/-/web/style.css", "/-/web/console.js", "/-/web/longline.js"} < named
    assert named <= SOURCES.keys()
    assert {path for path in SOURCES if path.startswith("/-/web/")} <= named


def test_health_says_what_is_kept(serve):
    assert serve().get("/-/health").json()["keeps"] == {"updates": 1000, "seconds": 604800}
    assert serve(CHANNEL_STORAGE_MAXSIZE=7, DATA_TTL=90).get("/-/health").json()["keeps"] == {"updates": 7, "seconds": 90}
