/** Notes of an operations team and questions to them, each with the note that answers it. Made up. */
export const notes: Readonly<Record<string, string>> = {
  rollback:
    'To undo a release, run make rollback in the deploy repository and wait until all pods report the old version.',
  canary:
    'New versions go to five percent of the traffic first. If the error rate of the canary doubles, the release stops by itself.',
  pool: 'The checkout service has forty database connections. When the pool is exhausted, requests wait two seconds and then fail with 503.',
  failover:
    'When the primary database dies, Patroni promotes a replica within thirty seconds. Do not restart the old primary by hand.',
  backup:
    'Base backups are taken every night at two, and the write-ahead log is archived each minute. A restore test runs on Sundays.',
  certificate:
    'Certificates of the gateway renew sixty days before they expire. If renewal fails, an alert goes to the platform team.',
  oncall:
    'The on-call engineer changes on Monday at ten. Swap shifts in the calendar, not by chat.',
  severity:
    'A critical incident means that customers cannot pay. A high one means that a part of the shop is slow or wrong.',
  postmortem:
    'Within five days after a critical incident the owner writes a blameless postmortem with a timeline and actions.',
  cache:
    'The product cache lives in Redis for ten minutes. Flush it with cachectl flush products after a price change.',
  queue:
    'Orders wait in the queue when the warehouse is offline. A backlog of more than a thousand orders pages the on-call engineer.',
  retry:
    'Payment calls are retried three times with a growing pause. An idempotency key keeps a customer from being charged twice.',
  ratelimit:
    'Partners may send one hundred requests a second. Beyond that the gateway answers 429 and tells when to try again.',
  secrets:
    'Secrets are kept in the vault and rotated every quarter. Never put a token into an environment file of the repository.',
  logs: 'Logs are kept for thirty days. Search them by the trace id that every answer carries in its header.',
  metrics:
    'Dashboards show latency at the 95th percentile. Averages are not shown, since they hide the slow requests.',
  disk: 'If a disk fills up, first delete old core dumps in /var/crash, then grow the volume. Log rotation runs each hour.',
  memory:
    'A worker that grows beyond two gigabytes is restarted. A heap snapshot is written before that into the bucket for diagnostics.',
  dns: 'Internal names resolve through two servers in each zone. After a change it takes up to five minutes until all clients see it.',
  migration:
    'Schema migrations run before the new code. They must work with the old code, too, since both run side by side for a while.',
  feature:
    'Features are switched by flags. A flag that has been on for a month is removed together with the old path.',
  search:
    'The search index of products is rebuilt at night. A single product can be indexed again from the admin page.',
  email:
    'Mails to customers go through a provider with two accounts. When bounces exceed five percent, sending stops.',
  holiday:
    'Before the holiday season nothing is deployed for two weeks, but for fixes that the head of engineering approves.',
}

export const questions: readonly (readonly [question: string, note: keyof typeof notes])[] = [
  ['How do I undo a release?', 'rollback'],
  ['the deploy went wrong, go back to the old version', 'rollback'],
  ['what share of traffic sees a new version first', 'canary'],
  ['when does a release stop by itself?', 'canary'],
  ['checkout fails with 503', 'pool'],
  ['how many connections to the database does the checkout have?', 'pool'],
  ['primary database is dead', 'failover'],
  ['should I restart the old primary', 'failover'],
  ['when are backups taken?', 'backup'],
  ['is restoring tested', 'backup'],
  ['gateway certificate expired', 'certificate'],
  ['who is alerted if renewing a certificate fails', 'certificate'],
  ['how can I swap my shift', 'oncall'],
  ['when does the on-call engineer change?', 'oncall'],
  ['what is a critical incident', 'severity'],
  ['customers cannot pay', 'severity'],
  ['how soon must a postmortem be written?', 'postmortem'],
  ['prices changed but products show the old one, flush', 'cache'],
  ['how long are products cached', 'cache'],
  ['orders pile up, the warehouse is offline', 'queue'],
  ['could a customer be charged twice?', 'retry'],
  ['how often is a payment retried', 'retry'],
  ['partner gets 429', 'ratelimit'],
  ['how many requests may partners send', 'ratelimit'],
  ['where do I put a token', 'secrets'],
  ['how often are secrets rotated?', 'secrets'],
  ['how long do we keep logs', 'logs'],
  ['find the log lines of one answer by trace', 'logs'],
  ['why do dashboards show no averages?', 'metrics'],
  ['disk is full', 'disk'],
  ['where are core dumps', 'disk'],
  ['worker restarted, memory grows', 'memory'],
  ['where is the heap snapshot', 'memory'],
  ['how long until clients see a changed name', 'dns'],
  ['do migrations run before the code?', 'migration'],
  ['when is a flag removed', 'feature'],
  ['index a single product again', 'search'],
  ['mails bounce, sending stopped', 'email'],
  ['may I deploy during the holiday season?', 'holiday'],
  ['who approves a fix before the holidays', 'holiday'],
]
