/**
 * The arrows between the folders. DESIGN, "The house", in the form a machine checks:
 *
 *     bench  test
 *        |    |
 *     server/cli ------+-------------.
 *        |             |             |
 *     server        sync/client --> src
 *        |   \         |             |
 *        |    '--> sync/merge        |
 *        |             |             |
 *        '--> sync/protocol          |
 *                      |             |
 *                      '--> schema <-'
 *
 * `server` may also use `src/vector`. Product code never imports tests or benches.
 *
 * @type {import('dependency-cruiser').IConfiguration}
 */
module.exports = {
  forbidden: [
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'no-orphans',
      comment: 'a product file nobody imports and that imports nothing is forgotten',
      severity: 'error',
      from: { orphan: true, path: '^(schema|src|sync|server)/', pathNot: '/(main|index)\\.ts$' },
      to: {},
    },
    {
      name: 'schema-is-ground',
      comment: 'schema imports nothing of ours',
      severity: 'error',
      from: { path: '^schema/' },
      to: { path: '^(src|sync|server|bench|test)/' },
    },
    {
      name: 'src-only-schema',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(sync|server|bench|test)/' },
    },
    {
      name: 'sync-not-server',
      severity: 'error',
      from: { path: '^sync/' },
      to: { path: '^(server|bench|test)/' },
    },
    {
      name: 'protocol-and-merge-are-pure',
      comment: 'client and server meet here: schema and each other, no engine, no store',
      severity: 'error',
      from: { path: '^sync/(protocol|merge)/' },
      to: { path: '^(src/|sync/(?!protocol/|merge/))' },
    },
    {
      name: 'protocol-and-merge-have-no-io',
      severity: 'error',
      from: { path: '^sync/(protocol|merge)/' },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'server-shares-only-protocol-and-merge',
      comment: 'the central side does not load the embedded store, except for its vector index',
      severity: 'error',
      from: { path: '^server/', pathNot: '^server/cli/' },
      to: { path: '^(src/(?!vector/)|sync/(?!protocol/|merge/)|bench/|test/)' },
    },
    {
      name: 'server-not-cli',
      comment: 'the command line sits on top; no service may pull the store in through it',
      severity: 'error',
      from: { path: '^server/', pathNot: '^server/cli/' },
      to: { path: '^server/cli/' },
    },
    {
      name: 'product-not-tests',
      severity: 'error',
      from: { path: '^(schema|src|sync|server)/' },
      to: { path: '^(test|bench)/' },
    },
    {
      name: 'src-by-its-doors',
      comment: 'sync enters src through src/index.ts or src/internal-for-sync.ts',
      severity: 'error',
      from: { path: '^sync/' },
      to: { path: '^src/', pathNot: '^src/(index|internal-for-sync)\\.ts$' },
    },
    {
      name: 'no-own-barrel',
      comment: 'inside a folder import the file, not its own index.ts',
      severity: 'error',
      from: {
        path: '^(schema|src|sync|server)/',
        pathNot: '^((schema|src|sync|server)/index\\.ts$|server/cli/)',
      },
      to: { path: '^$1/index\\.ts$' },
    },
    {
      name: 'driver-better-sqlite3',
      severity: 'error',
      from: { path: '^(schema|src|sync|server)/', pathNot: '^src/sqlite/' },
      to: { path: 'node_modules/(@types/)?better-sqlite3/' },
    },
    {
      name: 'driver-postgres',
      severity: 'error',
      from: { path: '^(schema|src|sync|server)/', pathNot: '^server/postgres/' },
      to: { path: 'node_modules/((@types/)?pg|postgres|@electric-sql/pglite)/' },
    },
    {
      name: 'driver-redis',
      severity: 'error',
      from: { path: '^(schema|src|sync|server)/', pathNot: '^server/redis/' },
      to: { path: 'node_modules/(ioredis|redis)/' },
    },
    {
      name: 'driver-qdrant',
      severity: 'error',
      from: { path: '^(schema|src|sync|server)/', pathNot: '^server/qdrant/' },
      to: { path: 'node_modules/@qdrant/' },
    },
    {
      name: 'driver-vector',
      severity: 'error',
      from: { path: '^(schema|src|sync|server)/', pathNot: '^src/vector/' },
      to: { path: 'node_modules/(hnswlib-node|usearch|sqlite-vec)/' },
    },
    {
      name: 'no-dev-deps-in-product',
      severity: 'error',
      from: { path: '^(schema|src|sync|server)/' },
      to: {
        dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'],
        dependencyTypesNot: ['type-only'],
        // The types of a driver are a dev dependency; the driver itself is not.
        pathNot: 'node_modules/@types/',
      },
    },
    { name: 'not-unresolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'types', 'node', 'default'],
    },
  },
}
