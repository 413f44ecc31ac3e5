import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.function.Predicate;
import java.util.function.Supplier;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageClientExt;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.common.message.MessageRequestMode;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/**
 * The Java client of RocketMQ against a cluster, part by part: {@code java -cp ... StockClient.java NAMESRV [PART...]}.
 *
 * <p>Prints a line for each part, and ends with 1 if one failed. Parts have topics and groups of their own.
 */
public final class StockClient {
    /** How long something that must happen may take: more than the client's own pauses of 20 and 30 s. */
    private static final long PATIENCE_MS = 60_000;

    private final String nameServers;
    private final String run = Long.toString(System.currentTimeMillis(), 36);
    private final List<Runnable> closing = new ArrayList<>();
    private final DefaultMQProducer producer;
    private int named;

    private StockClient(String nameServers) throws MQClientException {
        this.nameServers = nameServers;
        producer = new DefaultMQProducer("producers" + run, true, null);
        producer.setNamesrvAddr(nameServers);
        producer.setSendMsgTimeout(10_000);
        producer.start();
    }

    private interface Part {
        void run() throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        StockClient client = new StockClient(arguments[0]);
        Map<String, Part> parts = client.parts();
        List<String> wanted = Arrays.asList(arguments).subList(1, arguments.length);
        int failed = 0;
        for (String name : wanted.isEmpty() ? parts.keySet() : wanted) {
            failed += client.succeeds(name, parts.get(name)) ? 0 : 1;
        }
        client.producer.shutdown();
        System.exit(failed == 0 ? 0 : 1);
    }

    private Map<String, Part> parts() {
        Map<String, Part> parts = new LinkedHashMap<>();
        parts.put("sends", this::sends);
        parts.put("concurrently", this::concurrently);
        parts.put("orderly", this::orderly);
        parts.put("broadcasting", this::broadcasting);
        parts.put("sql", this::sql);
        parts.put("retries", this::retries);
        parts.put("delays", this::delays);
        parts.put("recall", this::recall);
        parts.put("transactions", this::transactions);
        parts.put("lite-pull", this::litePull);
        parts.put("queries", this::queries);
        parts.put("pop", () -> pop(false));
        parts.put("pop-orderly", () -> pop(true));
        return parts;
    }

    private boolean succeeds(String name, Part part) {
        long start = System.currentTimeMillis();
        try {
            part.run();
            System.out.printf("ok      %s (%d ms)%n", name, System.currentTimeMillis() - start);
            return true;
        } catch (Exception | AssertionError failure) {
            System.out.printf("FAILED  %s: %s%n", name, failure);
            return false;
        } finally {
            closing.forEach(Runnable::run);
            closing.clear();
        }
    }

    private void sends() throws Exception {
        String topic = topic(4);
        check(producer.send(message(topic, "A", "sync")).getSendStatus() == SendStatus.SEND_OK, "sync");
        CountDownLatch acked = new CountDownLatch(50);
        for (int i = 0; i < 50; i++) {
            producer.send(message(topic, "B", "async" + i), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    acked.countDown();
                }

                @Override
                public void onException(Throwable failure) {
                    System.out.println("async send: " + failure);
                }
            });
        }
        check(acked.await(PATIENCE_MS, TimeUnit.MILLISECONDS), acked.getCount() + " async sends are not acked");
        producer.sendOneway(message(topic, "C", "oneway"));
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 30; i++) {
            batch.add(message(topic, "D", "batch" + i));
        }
        check(producer.send(batch).getSendStatus() == SendStatus.SEND_OK, "batch");
        MessageQueue chosen = producer.fetchPublishMessageQueues(topic).get(3);
        SendResult result = producer.send(message(topic, "E", "chosen"), (queues, message, wanted) -> chosen, null);
        check(result.getMessageQueue().getQueueId() == chosen.getQueueId(), "queue " + result.getMessageQueue());
    }

    private void concurrently() throws Exception {
        String topic = topic(4);
        Set<String> sent = fill(topic, "A", 60);
        byte[] large = new byte[200_000];
        Arrays.fill(large, (byte) 'z');
        producer.send(new Message(topic, "large", large));
        Set<String> got = ConcurrentHashMap.newKeySet();
        AtomicInteger whole = new AtomicInteger();
        listen(consumer(topic, "A || large"), message -> {
            boolean isLarge = Arrays.equals(message.getBody(), large);
            whole.addAndGet(isLarge ? 1 : 0);
            return isLarge || got.add(body(message));
        });
        await(() -> got.equals(sent), () -> "got " + got.size() + " of " + sent.size());
        await(() -> whole.get() == 1, () -> "the large, compressed message came " + whole + " times");
    }

    private void orderly() throws Exception {
        String topic = topic(2);
        fill(topic, "A", 40);
        Map<MessageQueue, List<Long>> got = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = consumer(topic, "*");
        listenInOrder(consumer, got);
        awaitInOrder(got, 40);
    }

    private void broadcasting() throws Exception {
        String topic = topic(2);
        fill(topic, "A", 20);
        String group = name("group");
        AtomicInteger got = new AtomicInteger();
        for (int member = 0; member < 2; member++) {
            DefaultMQPushConsumer consumer = consumer(group, topic, "*");
            consumer.setMessageModel(MessageModel.BROADCASTING);
            listen(consumer, message -> got.incrementAndGet() > 0);
        }
        await(() -> got.get() == 40, () -> "two members got " + got + " of 40");
    }

    private void sql() throws Exception {
        String topic = topic(2);
        for (int i = 0; i < 20; i++) {
            Message message = message(topic, "S", "m" + i);
            message.putUserProperty("a", Integer.toString(i));
            producer.send(message);
        }
        Set<String> got = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer consumer = consumer(name("group"), topic, null);
        consumer.subscribe(topic, MessageSelector.bySql("a BETWEEN 5 AND 8 AND TAGS = 'S'"));
        listen(consumer, message -> got.add(body(message)));
        Set<String> wanted = new TreeSet<>(List.of("m5", "m6", "m7", "m8"));
        await(() -> got.equals(wanted), () -> "got " + got);
        DefaultMQPushConsumer wrong = new DefaultMQPushConsumer(name("group"));
        wrong.setNamesrvAddr(nameServers);
        wrong.subscribe(topic, MessageSelector.bySql("a >< 5"));
        wrong.registerMessageListener((MessageListenerConcurrently) (messages, context) -> null);
        try {
            wrong.start();
            throw new AssertionError("an illegal expression was taken");
        } catch (MQClientException refused) {
            check(refused.getResponseCode() == 23 || refused.getMessage().contains("23"), refused.toString());
        } finally {
            wrong.shutdown();
        }
    }

    private void retries() throws Exception {
        String topic = topic(1);
        producer.send(message(topic, "A", "poison"));
        String group = name("group");
        List<Integer> attempts = Collections.synchronizedList(new ArrayList<>());
        DefaultMQPushConsumer consumer = consumer(group, topic, "*");
        consumer.setMaxReconsumeTimes(1);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> attempts.add(message.getReconsumeTimes()));
            context.setDelayLevelWhenNextConsume(1);
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        start(consumer);
        await(() -> attempts.equals(List.of(0, 1)), () -> "attempts " + attempts);
        Set<String> dead = ConcurrentHashMap.newKeySet();
        await(() -> routed("%DLQ%" + group), () -> "there is no topic of dead letters");
        listen(consumer("%DLQ%" + group, "*"), message -> dead.add(body(message)));
        await(() -> dead.contains("poison"), () -> "dead letters " + dead);
    }

    private void delays() throws Exception {
        String topic = topic(1);
        long start = System.currentTimeMillis();
        Message leveled = message(topic, "A", "level");
        leveled.setDelayTimeLevel(2);
        producer.send(leveled);
        Message timed = message(topic, "A", "timer");
        timed.setDelayTimeMs(1_500);
        producer.send(timed);
        Map<String, Long> after = new ConcurrentHashMap<>();
        listen(consumer(topic, "*"), message -> {
            after.put(body(message), System.currentTimeMillis() - start);
            return true;
        });
        await(() -> after.size() == 2, () -> "came " + after.keySet());
        check(after.get("level") >= 5_000 && after.get("timer") >= 1_500, "too early: " + after);
    }

    private void recall() throws Exception {
        String topic = topic(1);
        Map<String, String> handles = new HashMap<>();
        for (String name : List.of("recalled", "kept")) {
            Message message = message(topic, "A", name);
            message.setDelayTimeSec(4);
            handles.put(name, producer.send(message).getRecallHandle());
        }
        check(producer.recallMessage(topic, handles.get("recalled")) != null, "the recall has no answer");
        Set<String> got = ConcurrentHashMap.newKeySet();
        listen(consumer(topic, "*"), message -> got.add(body(message)));
        // Both were due at the same time.
        await(() -> got.contains("kept"), () -> "got " + got);
        check(!got.contains("recalled"), "a recalled message came");
    }

    private void transactions() throws Exception {
        String topic = topic(1);
        Set<String> asked = ConcurrentHashMap.newKeySet();
        TransactionMQProducer transactional = new TransactionMQProducer(name("producers"));
        transactional.setNamesrvAddr(nameServers);
        transactional.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object state) {
                return (LocalTransactionState) state;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                asked.add(body(message));
                return LocalTransactionState.COMMIT_MESSAGE;
            }
        });
        transactional.start();
        closing.add(transactional::shutdown);
        for (LocalTransactionState state : LocalTransactionState.values()) {
            Message message = message(topic, "A", state.name());
            message.putUserProperty("CHECK_IMMUNITY_TIME_IN_SECONDS", "2");
            transactional.sendMessageInTransaction(message, state);
        }
        Set<String> got = ConcurrentHashMap.newKeySet();
        listen(consumer(topic, "*"), message -> got.add(body(message)));
        await(() -> got.equals(Set.of("COMMIT_MESSAGE", "UNKNOW")), () -> "came " + got + ", asked " + asked);
        check(asked.equals(Set.of("UNKNOW")), "asked for " + asked);
    }

    private void litePull() throws Exception {
        String topic = topic(2);
        fill(topic, "A", 30);
        DefaultLitePullConsumer subscribed = litePullConsumer();
        subscribed.subscribe(topic, "A");
        subscribed.start();
        AtomicInteger polled = new AtomicInteger();
        await(() -> polled.addAndGet(subscribed.poll(500).size()) >= 30, () -> "polled " + polled);
        DefaultLitePullConsumer assigned = litePullConsumer();
        assigned.start();
        Collection<MessageQueue> queues = assigned.fetchMessageQueues(topic);
        assigned.assign(queues);
        for (MessageQueue queue : queues) {
            assigned.seek(queue, assigned.offsetForTimestamp(queue, System.currentTimeMillis() - 3_600_000));
        }
        AtomicInteger read = new AtomicInteger();
        await(() -> read.addAndGet(assigned.poll(500).size()) >= 30, () -> "read " + read + " of 30");
    }

    private void queries() throws Exception {
        String topic = topic(1);
        Message message = message(topic, "A", "wanted");
        message.setKeys("key1");
        SendResult sent = producer.send(message);
        long now = System.currentTimeMillis();
        List<MessageExt> found = new ArrayList<>();
        await(() -> found.addAll(byKey(topic, "key1", now)), () -> "nothing found by key");
        String place = ((MessageClientExt) found.get(0)).getOffsetMsgId();
        for (String id : List.of(sent.getMsgId(), place)) {
            check(body(producer.viewMessage(topic, id)).equals("wanted"), "by id " + id);
        }
        MessageQueue queue = sent.getMessageQueue();
        check(producer.minOffset(queue) == 0 && producer.maxOffset(queue) == sent.getQueueOffset() + 1, "offsets");
    }

    private void pop(boolean inOrder) throws Exception {
        String topic = topic(2);
        Set<String> sent = fill(topic, "A", 40);
        String group = name("group");
        switchToPop(group, topic, inOrder);
        DefaultMQPushConsumer consumer = consumer(group, topic, "*");
        consumer.setClientRebalance(false);
        if (inOrder) {
            Map<MessageQueue, List<Long>> got = new ConcurrentHashMap<>();
            listenInOrder(consumer, got);
            awaitInOrder(got, 40);
            return;
        }
        Set<String> got = ConcurrentHashMap.newKeySet();
        AtomicInteger again = new AtomicInteger();
        String refused = sent.iterator().next();
        listen(consumer, message -> {
            again.addAndGet(message.getReconsumeTimes());
            return !body(message).equals(refused) || message.getReconsumeTimes() > 0;
        }, got);
        await(() -> got.equals(sent) && again.get() == 1, () -> "got " + got.size() + ", again " + again);
    }

    private void switchToPop(String group, String topic, boolean inOrder) throws Exception {
        DefaultMQAdminExt admin = new DefaultMQAdminExt();
        admin.setNamesrvAddr(nameServers);
        admin.setInstanceName(name("admin"));
        admin.start();
        closing.add(admin::shutdown);
        SubscriptionGroupConfig settings = new SubscriptionGroupConfig();
        settings.setGroupName(group);
        settings.setConsumeMessageOrderly(inOrder);
        for (BrokerData broker : admin.examineTopicRouteInfo(topic).getBrokerDatas()) {
            String address = broker.selectBrokerAddr();
            admin.createAndUpdateSubscriptionGroupConfig(address, settings);
            admin.setMessageRequestMode(address, topic, group, MessageRequestMode.POP, 8, PATIENCE_MS);
        }
    }

    private String name(String kind) {
        return kind + "-" + run + "-" + named++;
    }

    private String topic(int queues) throws Exception {
        String topic = name("topic");
        producer.createTopic("TBW102", topic, queues, Map.of());
        await(() -> routed(topic), () -> "no route to " + topic);
        return topic;
    }

    private boolean routed(String topic) {
        try {
            return !producer.fetchPublishMessageQueues(topic).isEmpty();
        } catch (MQClientException unknown) {
            return false;
        }
    }

    private List<MessageExt> byKey(String topic, String key, long now) {
        try {
            return producer.queryMessage(topic, key, 10, 0, now + 1_000).getMessageList();
        } catch (MQClientException | InterruptedException nothing) {
            return List.of();
        }
    }

    /** Sends messages; gives their bodies. */
    private Set<String> fill(String topic, String tags, int count) throws Exception {
        Set<String> bodies = new TreeSet<>();
        for (int i = 0; i < count; i++) {
            String text = "m" + i;
            producer.send(message(topic, tags, text));
            bodies.add(text);
        }
        return bodies;
    }

    private static Message message(String topic, String tags, String text) {
        return new Message(topic, tags, text.getBytes(StandardCharsets.UTF_8));
    }

    private static String body(MessageExt message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    private DefaultMQPushConsumer consumer(String topic, String expression) throws MQClientException {
        return consumer(name("group"), topic, expression);
    }

    private DefaultMQPushConsumer consumer(String group, String topic, String expression) throws MQClientException {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(nameServers);
        consumer.setInstanceName(name("instance"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        if (expression != null) {
            consumer.subscribe(topic, expression);
        }
        return consumer;
    }

    private DefaultLitePullConsumer litePullConsumer() {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(name("group"));
        consumer.setNamesrvAddr(nameServers);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        closing.add(consumer::shutdown);
        return consumer;
    }

    private void start(DefaultMQPushConsumer consumer) throws MQClientException {
        consumer.start();
        closing.add(consumer::shutdown);
    }

    private void listen(DefaultMQPushConsumer consumer, Predicate<MessageExt> takes) throws MQClientException {
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            // Each is looked at, whatever became of the one before.
            long refused = messages.stream().filter(message -> !takes.test(message)).count();
            return refused == 0 ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        start(consumer);
    }

    /** The same, keeping the bodies of what was taken. */
    private void listen(DefaultMQPushConsumer consumer, Predicate<MessageExt> takes, Set<String> taken)
        throws MQClientException {
        listen(consumer, message -> {
            boolean isTaken = takes.test(message);
            if (isTaken) {
                taken.add(body(message));
            }
            return isTaken;
        });
    }

    private void listenInOrder(DefaultMQPushConsumer consumer, Map<MessageQueue, List<Long>> got)
        throws MQClientException {
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            for (MessageExt message : messages) {
                MessageQueue queue = new MessageQueue(message.getTopic(), message.getBrokerName(), message.getQueueId());
                got.computeIfAbsent(queue, unseen -> Collections.synchronizedList(new ArrayList<>()))
                    .add(message.getQueueOffset());
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        start(consumer);
    }

    private static void awaitInOrder(Map<MessageQueue, List<Long>> got, int count) throws InterruptedException {
        await(() -> got.values().stream().mapToInt(List::size).sum() == count, () -> "came " + got);
        for (List<Long> offsets : got.values()) {
            check(new ArrayList<>(new TreeSet<>(offsets)).equals(offsets), "out of order: " + got);
        }
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    private static void await(BooleanSupplier condition, Supplier<String> otherwise)
        throws InterruptedException {
        long end = System.currentTimeMillis() + PATIENCE_MS;
        while (!condition.getAsBoolean()) {
            check(System.currentTimeMillis() < end, otherwise.get());
            Thread.sleep(20);
        }
    }
}
