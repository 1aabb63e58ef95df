import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { scratchFolder, type ScratchFolder } from '../support/store.ts'

const repository = fileURLToPath(new URL('../../', import.meta.url))
let folder: ScratchFolder

/** The store as it is published, JavaScript alone, in a folder of its own. */
beforeAll(() => {
  folder = scratchFolder()
  for (const name of readdirSync(repository, { recursive: true, encoding: 'utf8' }).filter((path) =>
    /^(schema|src)\/.*\.ts$/.test(path),
  )) {
    const { outputText } = ts.transpileModule(readFileSync(join(repository, name), 'utf8'), {
      compilerOptions: {
        target: ts.ScriptTarget.ES2023,
        module: ts.ModuleKind.ESNext,
        rewriteRelativeImportExtensions: true,
      },
      fileName: name,
    })
    const to = folder.file(`package/${name.replace(/\.ts$/, '.js')}`)
    mkdirSync(dirname(to), { recursive: true })
    writeFileSync(to, outputText)
  }
  cpSync(join(repository, 'schema/migrations'), folder.file('package/schema/migrations'), {
    recursive: true,
  })
  writeFileSync(folder.file('package/package.json'), '{"type":"module"}')
})

afterAll(() => folder[Symbol.dispose]())

/** What a program prints that runs on the package, with these dependencies of it left out. */
function run(without: readonly string[], program: string): string[] {
  const modules = folder.file('package/node_modules')
  execFileSync('rm', ['-rf', modules])
  mkdirSync(modules)
  for (const name of readdirSync(join(repository, 'node_modules')))
    if (!without.includes(name) && !name.startsWith('.'))
      symlinkSync(join(repository, 'node_modules', name), join(modules, name))
  writeFileSync(folder.file('package/program.js'), program)
  return execFileSync(process.execPath, [folder.file('package/program.js')], { encoding: 'utf8' })
    .trim()
    .split('\n')
}

const setUp = `
  import { AgentDB } from './src/index.js'
  import { StoreChanges } from './src/search/store-changes.js'
  import { internalsOf } from './src/internals.js'
  import { VectorGraphs } from './src/vector/graph/vector-graphs.js'
  const db = await AgentDB.open({ path: ':memory:' })
  const collection = 'code_embeddings'
  const vector = (n) => Float32Array.from({ length: 4 }, (_, i) => Math.sin(n * 7 + i * i + 1))
  await db.embeddings.putMany(Array.from({ length: 50 }, (_, n) => ({ collection, model: 'm', vector: vector(n) })))
  const { connection } = internalsOf(db)
  const first = (index) => new Promise((done) => {
    const graphs = new VectorGraphs({ index, threshold: 1, storePath: ':memory:', storeId: 'x', source: new StoreChanges(connection), onEvent: (event) => done({ graphs, event }) })
    graphs.of(collection, 'm', 4)
    setInterval(() => undefined, 1000).unref()
  })
  const alive = setInterval(() => undefined, 1000)
  const end = async (graphs) => { await graphs.close(); await db.close(); clearInterval(alive) }
`

test.each(['hnswlib', 'usearch'])(
  'from JavaScript the thread starts by itself, and %s answers',
  (index) => {
    const printed = run(
      ['tsx'],
      `${setUp}
    const { graphs, event } = await first('${index}')
    const found = await graphs.of(collection, 'm', 4).search(vector(7), 3, 50)
    console.log(event.kind, graphs.status()[0].engine, found.length, found[0].score.toFixed(2))
    await end(graphs)`,
    )
    expect(printed).toEqual([`ready ${index} 3 1.00`])
  },
)

test('auto takes the engine that is there', () => {
  for (const [missing, there] of [
    ['hnswlib-node', 'usearch'],
    ['usearch', 'hnswlib'],
  ] as const) {
    const printed = run(
      ['tsx', missing],
      `${setUp}
      const { graphs, event } = await first('auto')
      console.log(event.kind, graphs.status()[0].engine)
      await end(graphs)`,
    )
    expect(printed).toEqual([`ready ${there}`])
  }
})

test('without any engine the store opens and searches, and the graph says what is missing', () => {
  const printed = run(
    ['tsx', 'hnswlib-node', 'usearch'],
    `${setUp}
    const { graphs, event } = await first('auto')
    console.log(event.kind, event.message.includes('hnswlib-node cannot be loaded'), event.message.includes('usearch cannot be loaded'))
    console.log(graphs.of(collection, 'm', 4), graphs.status()[0].state)
    console.log((await db.search({ collection, vector: vector(7), k: 3 })).length)
    for (const vectorIndex of ['hnswlib', 'usearch'])
      await AgentDB.open({ path: ':memory:', vectorIndex }).catch(({ code, message }) => console.log(code, message))
    await end(graphs)`,
  )
  expect(printed).toEqual([
    'unavailable true true',
    'undefined unavailable',
    '3',
    'INVALID_OPTION AgentDB.open: vectorIndex hnswlib needs the package hnswlib-node: npm install hnswlib-node',
    'INVALID_OPTION AgentDB.open: vectorIndex usearch needs the package usearch: npm install usearch',
  ])
})
