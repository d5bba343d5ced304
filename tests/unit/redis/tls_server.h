/*
 * The other end of a TLS connection, over bytes that the test carries. Its certificate is its own
 * authority, and names localhost and its addresses.
 */
#pragma once

#include "base/buf.h"
#include "support.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <unistd.h>

static char ca_file[] = "/tmp/longline-test-XXXXXX"; /* what trusts it */
static SSL_CTX *tls_server_context;
static SSL *tls_server;

static X509 *make_certificate(EVP_PKEY *key) {
    X509 *certificate = X509_new();
    X509V3_CTX context;
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -86400);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, &context, NID_subject_alt_name,
                                                "DNS:localhost,IP:127.0.0.1,IP:::1");
    X509_add_ext(certificate, names, -1);
    X509_EXTENSION_free(names);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    return certificate;
}

static void tls_server_init(void) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = make_certificate(key);
    FILE *file = fdopen(mkstemp(ca_file), "w");
    assert_true(PEM_write_X509(file, certificate));
    fclose(file);
    tls_server_context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(tls_server_context, certificate);
    SSL_CTX_use_PrivateKey(tls_server_context, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static void tls_server_deinit(void) {
    SSL_CTX_free(tls_server_context);
    unlink(ca_file);
}

/* A new connection. */
static void tls_server_begin(void) {
    tls_server = SSL_new(tls_server_context);
    SSL_set_bio(tls_server, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_accept_state(tls_server);
}

static void tls_server_end(void) {
    SSL_free(tls_server);
    tls_server = NULL;
}

/* Takes what the client has sent; `clear` gets what it said, if that is whole. */
static void tls_server_take(const char *bytes, size_t len, struct buf *clear) {
    char text[4096];
    int got;
    BIO_write(SSL_get_rbio(tls_server), bytes, (int)len);
    if (!SSL_is_init_finished(tls_server))
        SSL_do_handshake(tls_server);
    while (SSL_is_init_finished(tls_server) && (got = SSL_read(tls_server, text, sizeof text)) > 0)
        buf_append(clear, text, (size_t)got);
    ERR_clear_error();
}

static void tls_server_say(const char *text) {
    assert_int_equal(SSL_write(tls_server, text, (int)strlen(text)), strlen(text));
}

/* Appends what is to be sent to the client. */
static void tls_server_give(struct buf *out) {
    char bytes[4096];
    int got;
    while ((got = BIO_read(SSL_get_wbio(tls_server), bytes, sizeof bytes)) > 0)
        buf_append(out, bytes, (size_t)got);
}
