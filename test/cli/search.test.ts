import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { CHUNK_CHARACTERS_MAX, chunksOf, kindOf } from '../../server/cli/indexing/chunks.ts'
import { listFiles } from '../../server/cli/indexing/files.ts'
import { indexFolder, type IndexReport } from '../../server/cli/indexing/folder-index.ts'
import { AgentDB } from '../../src/index.ts'
import { openStore, rejectionOf, scratchFolder, type ScratchFolder } from '../support/store.ts'
import { agentdbHere, parsed, Program } from './command.ts'

let scratch: ScratchFolder
let folder: string
let store: string
beforeEach(() => {
  scratch = scratchFolder()
  folder = scratch.file('shop')
  store = scratch.file('agent.db')
  mkdirSync(folder)
})
afterEach(() => scratch[Symbol.dispose]())

function write(files: Readonly<Record<string, string>>, at = folder): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(at, path)), { recursive: true })
    writeFileSync(join(at, path), text)
  }
}

const index = async (...args: string[]): Promise<Record<string, unknown>> =>
  parsed(await agentdbHere(['index', folder, '--db', store, '--json', ...args]))

interface Found {
  readonly collection: string
  readonly payload: Readonly<Record<string, unknown>>
  readonly highlight: string | null
}

const search = async (text: string, ...args: string[]): Promise<Found[]> =>
  parsed(await agentdbHere(['search', text, '--db', store, '--json', ...args]))[
    'results'
  ] as Found[]

/** Root may read anything: it is somebody else for a while, who still sees the scratch folder. */
function notRoot(): Disposable {
  const user = process.geteuid?.()
  chmodSync(scratch.path, 0o755)
  if (user === 0) process.seteuid?.(NOBODY)
  return { [Symbol.dispose]: () => user === 0 && process.seteuid?.(user) }
}

const NOBODY = 65534

const shop = {
  'README.md': '# Shop\n\nSells things.\n\n## Rollback\n\nRun `make rollback`, then wait.\n',
  'src/cart.ts': 'export function addToCart(item: string) {\n  return [item]\n}\n',
  'src/pay.py': 'def chargeCard(amount):\n    return amount\n',
}

describe('agentdb index', () => {
  test('makes code and documents searchable, with the fields of their collections', async () => {
    write(shop)
    expect(await index()).toMatchObject({ project: 'shop', added: 3, chunks: 4, stopped: false })
    const [doc] = await search('the rollback', '--in', 'documentation_embeddings')
    expect(doc).toMatchObject({
      payload: { title: 'Shop', section: 'Rollback', url: 'README.md#L5', project_id: 'shop' },
      highlight: expect.stringContaining('ollback**'),
    })
    const [code] = await search('ToCart', '--in', 'code_embeddings', '--match', 'substring')
    expect(code).toMatchObject({
      payload: { file_path: 'src/cart.ts', function_name: 'addToCart', language: 'typescript' },
    })
  })

  test('embeds only what changed, and takes away the rows of what is gone', async () => {
    write(shop)
    await index()
    expect(await index()).toMatchObject({
      added: 0,
      changed: 0,
      unchanged: 3,
      removed: 0,
      chunks: 0,
    })
    write({
      'src/cart.ts': 'export function removeFromCart() {}\n',
      'src/new.go': 'func main() {}\n',
    })
    rmSync(join(folder, 'src/pay.py'))
    expect(await index()).toMatchObject({
      added: 1,
      changed: 1,
      unchanged: 1,
      removed: 1,
      chunks: 2,
    })
    const code = await search('cart card charge main', '--in', 'code_embeddings', '--mode', 'text')
    expect(code.map(({ payload }) => String(payload['function_name'])).toSorted()).toEqual([
      'main',
      'removeFromCart',
    ])
  })

  test('leaves out what is binary, huge, of unknown kind, and says how many', async () => {
    write({
      ...shop,
      'photo.png': 'x',
      'binary.ts': 'a\0b',
      'huge.sql': 'SELECT 1;\n'.repeat(120_000),
      'node_modules/left-pad/index.js': 'module.exports = 1\n',
      'empty.ts': '',
    })
    expect(await index()).toMatchObject({
      added: 4,
      skipped: { unknown: 1, binary: 1, huge: 1, unreadable: 0 },
    })
    expect(await index()).toMatchObject({ unchanged: 4 })
  })

  test('of another folder of the same name is refused unless the project is named', async () => {
    write(shop)
    await index()
    rmSync(folder, { recursive: true })
    mkdirSync(folder)
    write({ 'other.md': '# Other\n' })
    const refused = await agentdbHere(['index', folder, '--db', store, '--json'])
    expect(refused).toMatchObject({ code: 2 })
    expect(refused.stderr).toContain('INVALID_OPTION')
    expect(await index('--project', 'other')).toMatchObject({ added: 1, removed: 0 })
    expect(await search('rollback', '--filter', 'project_id=shop')).not.toEqual([])
    expect(await index('--project', 'shop')).toMatchObject({ added: 1, removed: 3 })
  })

  test('of another folder of the same name is refused also where both have a README', async () => {
    write(shop)
    await index()
    const other = scratch.file('other/shop')
    write({ 'README.md': '# Another shop\n', 'main.go': 'func main() {}\n' }, other)
    const refused = await agentdbHere(['index', other, '--db', store])
    expect(refused).toMatchObject({ code: 2 })
    expect(refused.stderr).toContain(`has 1 of the 3 files that project "shop" has`)
    expect(await index()).toMatchObject({ unchanged: 3, removed: 0 })
  })

  test('goes on where half of the files are gone', async () => {
    write({ ...shop, 'src/tax.ts': 'export const tax = 1\n' })
    await index()
    rmSync(join(folder, 'src/pay.py'))
    rmSync(join(folder, 'src/tax.ts'))
    expect(await index()).toMatchObject({ unchanged: 2, removed: 2 })
  })

  test('keeps the rows of files that it cannot look at this time', async () => {
    write({ ...shop, 'docs/a.md': '# A\n', 'docs/b.md': '# B\n' })
    await index()
    const docs = join(folder, 'docs')
    rmSync(docs, { recursive: true })
    symlinkSync('docs', docs)
    expect(await index()).toMatchObject({ unchanged: 3, removed: 0, skipped: { unreadable: 2 } })
    rmSync(docs)
    expect(await index()).toMatchObject({ unchanged: 3, removed: 2, skipped: { unreadable: 0 } })
  })

  test('keeps the rows of files that it may not read this time', async () => {
    write(shop)
    await using db = await openStore()
    const again = (): Promise<IndexReport> =>
      indexFolder(db, {
        folder,
        project: 'shop',
        isProjectGiven: false,
        signal: new AbortController().signal,
        onProgress: () => undefined,
      })
    expect(await again()).toMatchObject({ added: 3 })
    chmodSync(join(folder, 'src/pay.py'), 0)
    using _ = notRoot()
    expect(await again()).toMatchObject({ removed: 0, skipped: { unreadable: 1 } })
    expect(db.embeddings.list()).toHaveLength(4)
  })

  test('that Ctrl-C stops keeps what it has, and goes on from there', async () => {
    write(
      Object.fromEntries(
        Array.from({ length: 600 }, (_, i) => [`f${i}.ts`, `export const name${i} = ${i}\n`]),
      ),
    )
    await using program = Program.start('server/cli/main.ts', ['index', folder, '--db', store])
    await program.error((text) => text.includes('indexing'))
    program.signal('SIGINT')
    const ended = await program.ended
    expect(ended).toMatchObject({ code: 130, signal: null })
    expect(ended.stdout).toContain('run it again')
    const done = Number(/(\d+) added/.exec(ended.stdout)?.[1])
    expect(done).toBeLessThan(600)
    const rest = await index()
    expect(rest).toMatchObject({ added: 600 - done, unchanged: done, changed: 0 })
    await using db = await AgentDB.open({ path: store })
    const paths = db.embeddings
      .list({ limit: 700 })
      .map(({ payload }) => (payload as { file_path: string }).file_path)
    expect(new Set(paths).size).toBe(600)
    expect(paths).toHaveLength(600)
  }, 60_000)

  test('of a folder that is not there says so', async () => {
    const ended = await agentdbHere(['index', join(folder, 'no'), '--db', store])
    expect(ended).toMatchObject({ code: 1 })
    expect(ended.stderr).toContain('NOT_FOUND')
  })
})

describe('files that git ignores', () => {
  const names = ['a', 'b', 'a.ts', 'b.md', '.env', 'dir', '#x', '!x', 'c d', '[z]', 'ü']
  const aPath = fc.array(fc.constantFrom(...names), { minLength: 1, maxLength: 4 })
  const aPattern = fc
    .tuple(
      fc.constantFrom('', '!', '/', '\\', '!/'),
      fc.array(
        fc.constantFrom(
          ...names,
          '*',
          '**',
          '?',
          '*.ts',
          'a*',
          '[ab]',
          '[!a]',
          '[a-c]*',
          '**/a',
          '\\#x',
        ),
        { minLength: 1, maxLength: 3 },
      ),
      fc.constantFrom('', '/', ' ', '/**'),
    )
    .map(([start, parts, end]) => `${start}${parts.join('/')}${end}`)

  test('are left out outside a repository as inside one', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(aPath, { minLength: 3, maxLength: 12 }),
        fc.array(aPattern, { minLength: 1, maxLength: 5 }),
        fc.array(aPattern, { maxLength: 3 }),
        async (paths, patterns, inner) => {
          const plain = scratch.file('plain')
          rmSync(plain, { recursive: true, force: true })
          mkdirSync(plain)
          for (const path of paths) {
            // A file where another path has a folder cannot be.
            try {
              write({ [path.join('/')]: 'x' }, plain)
            } catch {
              continue
            }
          }
          write({ '.gitignore': `${patterns.join('\n')}\n# comment\n` }, plain)
          if (
            readdirSync(plain, { withFileTypes: true }).some(
              (e) => e.isDirectory() && e.name === 'dir',
            )
          )
            write({ 'dir/.gitignore': inner.join('\n') }, plain)
          const walked = await listFiles(plain)
          const repository = scratch.file('repository')
          rmSync(repository, { recursive: true, force: true })
          cpSync(plain, repository, { recursive: true })
          execFileSync('git', ['init', '-q', repository], { stdio: 'ignore' })
          expect(walked).toEqual(await listFiles(repository))
        },
      ),
      { numRuns: 40 },
    )
  }, 60_000)

  describe('in a repository', () => {
    const files = {
      '.gitignore': '*.pem\nbuild/\n/lib/private\n',
      '.git/info/exclude': 'notes.md\n/lib/only-mine.md\n',
      'top.md': 'x',
      'lib/.gitignore': '!public.pem\n',
      'lib/a.md': 'x',
      'lib/key.pem': 'x',
      'lib/public.pem': 'x',
      'lib/notes.md': 'x',
      'lib/only-mine.md': 'x',
      'lib/private/b.md': 'x',
      'lib/deep/private/c.md': 'x',
      'build/out.md': 'x',
    }
    let lib: string
    beforeEach(() => {
      execFileSync('git', ['init', '-q', folder], { stdio: 'ignore' })
      write(files)
      lib = join(folder, 'lib')
    })
    afterEach(() => vi.unstubAllEnvs())

    test.each(['.', 'lib', 'lib/deep', 'build'])(
      'are left out of %s where git is not installed, too',
      async (at) => {
        const asked = await listFiles(join(folder, at))
        vi.stubEnv('PATH', scratch.path)
        expect(await listFiles(join(folder, at))).toEqual(asked)
      },
    )

    test('are those of the folder, whatever repository a hook of git works on', async () => {
      const other = scratch.file('other')
      execFileSync('git', ['init', '-q', other], { stdio: 'ignore' })
      const asked = await listFiles(lib)
      vi.stubEnv('GIT_DIR', join(other, '.git'))
      vi.stubEnv('GIT_WORK_TREE', other)
      vi.stubEnv('GIT_INDEX_FILE', join(other, '.git/index'))
      expect(await listFiles(lib)).toEqual(asked)
    })

    test('are not guessed where git does not trust it: nothing is read, and its words say what to do', async () => {
      vi.stubEnv('GIT_TEST_ASSUME_DIFFERENT_OWNER', '1')
      const error = await rejectionOf(listFiles(lib))
      expect(error.code).toBe('INVALID_OPTION')
      expect(error.message).toContain('dubious ownership')
      expect(error.message).toContain('safe.directory')
    })
  })
})

describe('a file is cut', () => {
  test('at its headings, not at what looks like one in a block of code', () => {
    const text = '# A\n\none\n\n```sh\n# not a heading\n```\n\n## B ##\n\ntwo\n'
    const chunks = chunksOf(text, { kind: 'document', hasHeadings: true })
    expect(chunks.map(({ name, startLine }) => [name, startLine])).toEqual([
      ['A', 1],
      ['B', 9],
    ])
  })

  test('into chunks that are not too long and hold every line, whatever it is', () => {
    const aLine = fc.oneof(
      fc.constantFrom('', 'function f() {', '  inner', '}', '# h', '```', 'text here'),
      fc.integer({ min: 1, max: 5000 }).map((length) => 'x'.repeat(length)),
    )
    fc.assert(
      fc.property(
        fc.array(aLine, { maxLength: 60 }),
        fc.constantFrom('a.ts', 'a.md', 'a.txt'),
        (lines, path) => {
          const kind = kindOf(path)
          if (kind === undefined) throw new Error('a kind')
          const chunks = chunksOf(lines.join('\n'), kind)
          const squeezed = (text: string): string => text.replaceAll(/\s+/g, '')
          expect(squeezed(chunks.map(({ content }) => content).join(''))).toBe(
            squeezed(lines.join('')),
          )
          for (const { content } of chunks)
            expect(content.length).toBeLessThanOrEqual(CHUNK_CHARACTERS_MAX * 1.1)
        },
      ),
    )
  })
})

describe('agentdb search', () => {
  test('shows where it was found and what', async () => {
    write(shop)
    await index()
    const { code, stdout } = await agentdbHere(['search', 'rollback', '--db', store, '-k', '1'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^1\.000 {2}documentation_embeddings {2}README\.md:5\n.*rollback/)
    const none = await agentdbHere(['search', 'zebra', '--db', store, '--mode', 'text'])
    expect(none).toEqual({ code: 0, stdout: '', stderr: 'nothing was found\n' })
  })

  test('looks by default wherever its mode and match can', async () => {
    write(shop)
    await index()
    await using db = await AgentDB.open({ path: store })
    const { id } = db.conversations.create({ title: 'addToCart' })
    db.messages.create({ conversation_id: id, role: 'user', content: 'addToCart' })
    const places = async (...args: string[]): Promise<string[]> =>
      (await search('addToCart', '-k', '100', ...args))
        .map(({ collection }) => collection)
        .toSorted()
    const code = 'code_embeddings'
    const documents = Array.from({ length: 2 }, () => 'documentation_embeddings')
    expect(await places()).toEqual([code, code, 'conversations', ...documents, 'messages'])
    expect(await places('--mode', 'vector')).toEqual([code, code, ...documents])
    expect(await places('--match', 'substring')).toEqual([code])
    const refused = await agentdbHere([
      'search',
      'x',
      '--db',
      store,
      '--mode',
      'vector',
      '--in',
      'messages',
    ])
    expect(refused).toMatchObject({ code: 2 })
  })

  test('finds only what matches, where it is said how; in hybrid mode what is near as well', async () => {
    write(shop)
    await index()
    const paths = async (...args: string[]): Promise<unknown[]> =>
      (await search('return amount', '--in', 'code_embeddings', ...args)).map(
        ({ payload }) => payload['file_path'],
      )
    expect(await paths('--match', 'phrase')).toEqual(['src/pay.py'])
    expect(await paths('--match', 'all')).toEqual(['src/pay.py'])
    expect(await paths('--match', 'all', '--mode', 'hybrid')).toEqual(['src/pay.py', 'src/cart.ts'])
  })

  test('keeps to fields, whether they hold text or numbers, and to one result a group', async () => {
    await using db = await AgentDB.open({ path: store })
    const first = db.conversations.create({ title: 'one' })
    const second = db.conversations.create({ title: 'two' })
    for (const { id } of [first, second, first])
      db.messages.create({ conversation_id: id, role: 'user', content: 'the disk is full' })
    const rows = await search('disk', '--in', 'messages', '--filter', 'sequence_number=2')
    expect(rows.map(({ payload }) => payload['conversation_id'])).toEqual([first.id])
    expect(await search('disk', '--in', 'messages', '--group', 'conversation_id')).toHaveLength(2)
  })

  test.each([
    [['search', 'x'], `required option '--db`],
    [['search', '--db', 'x'], `missing required argument 'text'`],
    [['search', 'x', '--db', 'x', '--in', 'poems'], 'There is no poems'],
    [['search', 'x', '--db', 'x', '--mode', 'magic'], 'Allowed choices are hybrid'],
    [['search', 'x', '--db', 'x', '-k', '0'], 'It must be 1 to 1000'],
    [['search', 'x', '--db', 'x', '--filter', 'high'], 'severity=high'],
    [['index', '.'], `required option '--db`],
  ])('%j is refused with 2 and says why', async (args, why) => {
    const ended = await agentdbHere(args)
    expect(ended).toMatchObject({ code: 2 })
    expect(ended.stderr).toContain(why)
  })

  test.each(['search', 'index'])('%s --help shows examples', async (command) => {
    const ended = await agentdbHere([command, '--help'])
    expect(ended).toMatchObject({ code: 0, stderr: '' })
    expect(ended.stdout).toContain('Examples:')
  })

  test('of a store that is not there makes none', async () => {
    const ended = await agentdbHere(['search', 'x', '--db', store])
    expect(ended).toMatchObject({ code: 1 })
    expect(ended.stderr).toContain('NOT_FOUND')
  })
})
