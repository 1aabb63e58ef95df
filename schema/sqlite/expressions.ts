/** Now, as `canonicalTimestamp` writes it. SQLite's clock has milliseconds. */
export const sqliteNow = `strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')`
