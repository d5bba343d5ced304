/*
 * Runs a fuzzer without libFuzzer: each file that it is given, and each in a folder that it is
 * given, once. It ends badly where the fuzzer does, and where there is nothing to run.
 */
#include <assert.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static char now[512]; /* the input that runs: it is told if it ends badly */
static int ran;

static void tell(void) {
    if (*now)
        fprintf(stderr, "it ended at %s\n", now);
}

/* Of the exact size, so that reading beyond it is seen. */
static uint8_t *read_file(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        return NULL;
    *len = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*len + !*len);
    assert(data && fread(data, 1, *len, file) == *len);
    fclose(file);
    return data;
}

static void run_file(const char *path) {
    size_t len;
    uint8_t *data = read_file(path, &len);
    assert(data);
    snprintf(now, sizeof now, "%s", path);
    LLVMFuzzerTestOneInput(data, len);
    *now = '\0';
    ran++;
    free(data);
}

static void run(const char *path) {
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);
    if (count < 0)
        run_file(path);
    for (int i = 0; i < count; i++) {
        char file[512];
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (*names[i]->d_name != '.')
            run_file(file);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
}

int main(int argc, char **argv) {
    atexit(tell);
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++)
        run(argv[i]);
    printf("%d inputs\n", ran);
    return ran ? EXIT_SUCCESS : EXIT_FAILURE;
}
