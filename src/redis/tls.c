#include "redis/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

struct tls_context {
    SSL_CTX *ssl;
};

struct tls {
    SSL *ssl;
    BIO *in, *out; /* the session's */
    char error[256];
};

struct tls_context *tls_context_new(const char *ca_file, char *error, size_t error_size) {
    struct tls_context *context = malloc(sizeof *context);
    if (context)
        context->ssl = SSL_CTX_new(TLS_client_method());
    if (!context || !context->ssl) {
        free(context);
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    SSL_CTX_set_min_proto_version(context->ssl, TLS1_2_VERSION);
    SSL_CTX_set_verify(context->ssl, SSL_VERIFY_PEER, NULL);
    int loaded = *ca_file ? SSL_CTX_load_verify_locations(context->ssl, ca_file, NULL)
                          : SSL_CTX_set_default_verify_paths(context->ssl);
    if (loaded != 1) {
        snprintf(error, error_size, "cannot read the certificates of REDIS_TLS_CA: %s", ca_file);
        ERR_clear_error();
        tls_context_free(context);
        return NULL;
    }
    return context;
}

void tls_context_free(struct tls_context *context) {
    if (!context)
        return;
    SSL_CTX_free(context->ssl);
    free(context);
}

/* The certificate must be for `host`, a name or an address. */
static bool expect_host(SSL *ssl, const char *host) {
    unsigned char ip[16];
    bool is_ip = uv_inet_pton(AF_INET, host, ip) == 0 || uv_inet_pton(AF_INET6, host, ip) == 0;
    if (is_ip)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

struct tls *tls_new(struct tls_context *context, const char *host) {
    struct tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return NULL;
    tls->ssl = SSL_new(context->ssl);
    tls->in = BIO_new(BIO_s_mem());
    tls->out = BIO_new(BIO_s_mem());
    if (!tls->ssl || !tls->in || !tls->out || !expect_host(tls->ssl, host)) {
        BIO_free(tls->in);
        BIO_free(tls->out);
        SSL_free(tls->ssl);
        free(tls);
        return NULL;
    }
    SSL_set_bio(tls->ssl, tls->in, tls->out);
    SSL_set_connect_state(tls->ssl);
    SSL_do_handshake(tls->ssl);
    return tls;
}

void tls_free(struct tls *tls) {
    if (!tls)
        return;
    SSL_free(tls->ssl);
    free(tls);
}

/* Whether `result` of a call only means that more bytes are needed; there is always room for what
 * is written. */
static bool is_fine(struct tls *tls, int result) {
    int error = SSL_get_error(tls->ssl, result);
    if (result > 0 || error == SSL_ERROR_WANT_READ)
        return true;
    long verified = SSL_get_verify_result(tls->ssl);
    if (verified != X509_V_OK)
        snprintf(tls->error, sizeof tls->error, "TLS: %s", X509_verify_cert_error_string(verified));
    else if (error == SSL_ERROR_ZERO_RETURN)
        snprintf(tls->error, sizeof tls->error, "TLS: closed by Redis");
    else
        snprintf(tls->error, sizeof tls->error, "TLS: %s",
                 ERR_reason_error_string(ERR_peek_last_error()));
    ERR_clear_error();
    return false;
}

bool tls_feed(struct tls *tls, struct slice bytes) {
    if (BIO_write(tls->in, bytes.data, (int)bytes.len) != (int)bytes.len)
        return false;
    if (SSL_is_init_finished(tls->ssl))
        return true;
    return is_fine(tls, SSL_do_handshake(tls->ssl));
}

bool tls_write(struct tls *tls, struct slice text) {
    return is_fine(tls, SSL_write(tls->ssl, text.data, (int)text.len));
}

bool tls_read(struct tls *tls, char *out, size_t size, size_t *len) {
    *len = 0;
    if (!SSL_is_init_finished(tls->ssl))
        return true;
    int result = SSL_read(tls->ssl, out, (int)size);
    if (result > 0)
        *len = (size_t)result;
    return is_fine(tls, result);
}

void tls_take(struct tls *tls, struct buf *out) {
    char *data;
    long len = BIO_get_mem_data(tls->out, &data);
    if (len > 0)
        buf_append(out, data, (size_t)len);
    BIO_reset(tls->out);
}

bool tls_is_ready(const struct tls *tls) {
    return SSL_is_init_finished(tls->ssl);
}

const char *tls_error(const struct tls *tls) {
    return *tls->error ? tls->error : "TLS: broken";
}
