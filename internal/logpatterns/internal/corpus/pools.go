// SPDX-License-Identifier: Apache-2.0

package corpus

import "strings"

// pools are the kinds that are drawn from a fixed set of values.
var pools = map[string][]string{
	"word": words,
	"user": strings.Fields(`alice deploy bob svc-billing jenkins carol root admin dmitri svc-search postgres app
		mallory grafana yuki backup erin frank svc-reports gitlab-runner hassan ingrid www-data joão kim lars
		nobody maria.lopez otto priya readonly replicator sofia tomasz ubuntu vera wei.chen ximena zoe monitoring`),
	"host": strings.Fields(`web-7 ip-10-0-3-7 db01.prod.example.com web-2 cache-03 ip-10-0-12-44.eu-west-1.compute.internal
		node-a1 worker-14 api.example.com db02.prod.example.com mq-0 mq-1 mq-2 kube-node-5 bastion edge-fra-1 edge-ams-2
		localhost build17 storage-9.dc2.example.net zk1 zk2 zk3 search-data-0 search-data-1 vault.internal proxy
		gke-prod-pool-1-8f3c node-b2 payments-canary registry.example.org ns1 mail.example.com lb-2 staging-web-1`),
	"ident": strings.Fields(`OrderService com.example.billing.InvoiceJob PaymentGateway UserRepository CacheManager
		com.example.search.IndexWriter SessionStore RetryPolicy HttpClient TokenValidator AuditTrail org.acme.stock.StockSync
		MailSender EventBus ThreadPool LeaseKeeper ShardRouter SnapshotReader com.example.api.v1.CartController
		PriceEngine CouponRule TaxCalculator org.acme.core.Scheduler DataSourceProxy ConfigWatcher FeatureFlags
		BatchImporter CsvExporter PdfRenderer ImageResizer GeoLocator RateLimiter CircuitBreaker LockManager
		com.example.auth.LoginHandler PasswordHasher MfaChallenge OAuthCallback WebhookDispatcher QueueConsumer
		DeadLetterHandler TopicRouter SchemaRegistry MigrationRunner HealthProbe MetricsReporter TraceSampler
		com.example.ship.LabelPrinter CarrierQuote WarehousePicker ReturnDesk LoyaltyPoints org.acme.io.FileSpooler
		BlobStore ArchiveJob CleanupTask ReindexTask StatsRollup LedgerBook FraudCheck RiskScore KycReview
		CurrencyTable ExchangeFeed SettlementRun PayoutQueue ChatBot PushNotifier SmsGateway CalendarSync
		TemplateEngine LocaleResolver AssetPipeline ManifestLoader PluginHost ScriptRunner QueryPlanner
		com.example.graph.Resolver DepthLimiter Persister Hydrator`),
	"error": {
		"connection refused", "context deadline exceeded", "no such file or directory", "i/o timeout",
		"connection reset by peer", "permission denied", "broken pipe", "unexpected EOF", "no route to host",
		"tls: handshake failure", "certificate has expired", "record not found", "too many open files",
		"resource temporarily unavailable", "duplicate key value violates unique constraint", "disk quota exceeded",
		"no space left on device", "invalid argument", "operation not permitted", "service unavailable",
		"name or service not known", "x509: certificate signed by unknown authority", "deadlock detected",
		"unauthorized", "not leader", "context canceled", "read-only file system", "address already in use",
		"bad gateway", "could not serialize access due to concurrent update",
	},
	"thread": strings.Fields(`main http-nio-8080-exec-3 http-nio-8080-exec-7 pool-2-thread-7 scheduling-1
		ForkJoinPool.commonPool-worker-3 task-4 kafka-consumer-0 HikariPool-1-housekeeper lettuce-nioEventLoop-4-1`),
	"logger": strings.Fields(`com.example.shop.OrderService com.example.shop.CartController com.example.auth.LoginHandler
		org.acme.core.Scheduler com.example.search.IndexWriter com.example.billing.InvoiceJob`),
}

var (
	roots   = []string{"/var/lib", "/etc", "/usr/share", "/var/log", "/opt/app", "/home", "/srv/data", "/tmp", "/run"}
	endings = []string{".log", ".yaml", ".json", ".conf", ".tmp", ".go", ".db", ".csv", ".pem", ".gz"}
	domains = []string{"example.com", "example.org", "corp.example.net", "mail.test", "shop.example"}
	tables  = strings.Fields(`orders users sessions invoices order_items payments audit_log carts products
		stock_moves accounts "public"."events" refresh_tokens shipments`)
	columns = strings.Fields(`id status user_id created_at email total sku quantity updated_at tenant_id amount token state name`)
)

var words = strings.Fields(`alpha anchor apple archive arrow atlas autumn badge baker balance bamboo banner barrel basket beacon
	bench berry binder birch blanket blossom board border bottle branch brass bread breeze brick bridge brook
	brush bucket buffer bundle butter button cabin cable camera candle canvas canyon carbon carpet castle cedar
	cellar chain chalk channel charm chart cherry chest circle cliff clock cloud clover coast cobalt coffee comet
	compass copper coral corner cotton cradle crane crater cream creek crown crystal cup curtain cycle daisy
	delta desert diamond dock dolphin domain door dragon drawer dream drum dune eagle earth echo eclipse elbow
	elm ember engine envelope epoch fabric falcon farm feather fence fern fiber field finch flame flint
	flower fog forest forge fork fossil fountain fox frame frost galaxy garden garnet gate gear ginger glacier
	glass globe glove gold granite grape grass gravel grove guitar gulf hammer harbor harvest hawk hazel
	helm heron hill hollow honey horizon hornet house ice indigo iris iron island ivory ivy jacket jade
	jasmine jigsaw juniper kettle key kite knot ladder lagoon lake lamp lantern lark lattice laurel lava leaf
	ledger lemon lens lever library light lilac lily linen lion lobby locket lotus lumber lunar magnet mango
	maple marble market marsh meadow melon mesa meteor mill mint mirror mist moon moss motor mountain mulberry
	nebula needle nest nickel night north nova oak oasis ocean olive onyx opal orange orbit orchid otter
	oven owl oyster paddle palm panel paper parade parcel pasture peach pearl pebble pencil pepper petal piano
	pillar pilot pine planet plaza plum pocket pond poplar portal prairie prism pulley quartz quill quilt rabbit
	radar rail rain raven reef ribbon ridge river robin rocket root rope rose ruby saddle saffron sage sail
	salmon salt sand sapphire satin scarlet shadow shell shore silk silver sky slate snow spark spice`)
